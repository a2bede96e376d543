"""Two tables of scores: by how much they differ, and what got worse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from plait.errors import InputError, nearest
from plait.tasks._bootstrap import draws, interval
from plait.tasks._metrics import Floats
from plait.tasks._scores import Evidence, Score, Scores, marked, plain


@dataclass(frozen=True)
class Difference:
    """How a model's score on a task differs from the baseline's.

    Args:
        model, baseline, task, metric: their names.
        new, old: both scores.
        value: new − old.
        low, high: of its 95 % interval, examples drawn in pairs; NaN if one table has no examples.
        n: over how many examples.
        semi_synthetic, higher_is_better: as in `Score`.
    """

    model: str
    baseline: str
    task: str
    metric: str
    new: float
    old: float
    value: float
    low: float
    high: float
    n: int
    semi_synthetic: bool
    higher_is_better: bool

    @property
    def label(self) -> str:
        """The task's name, marked if it is semi-synthetic."""
        return marked(self.task, self.semi_synthetic)

    @property
    def drop(self) -> float:
        """By how much the new score is worse; infinite if it is no number and the old one is."""
        if math.isnan(self.new):
            return 0.0 if math.isnan(self.old) else math.inf
        worse = self.old - self.new if self.higher_is_better else self.new - self.old
        return 0.0 if math.isnan(worse) else worse

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return plain(self)


def compare(new: Scores, old: Scores) -> list[Difference]:
    """Paired differences: for each row of the new table, new − old.

    A model is compared with the old one of its name, or with the only one. Intervals draw the same examples
    for both.

    Raises:
        InputError: a task or model has no counterpart, or both were scored on other examples or by another
            metric.
    """
    _check_tasks(new, old)
    found = []
    for row in new:
        baseline = _counterpart(row.model, old)
        other = old.score(baseline, row.task, row.metric if _several(new, row) else None)
        _check_rows(row, other)
        _check_data(row.task, new, old)
        low, high = _interval(new, row, old, other)
        difference = row.value - other.value
        named = (row.model, baseline, row.task, row.metric)
        numbers = (row.value, other.value, difference, low, high, row.n)
        found.append(Difference(*named, *numbers, row.semi_synthetic, row.higher_is_better))
    return found


def regressions(new: Scores, old: Scores, max_drop: float) -> list[Difference]:
    """Where a score is worse than the baseline's by more than `max_drop`, the worst first.

    A score that has become NaN is a regression.

    Raises:
        InputError: as `compare`; or `max_drop` is below 0 or no number.
    """
    if not 0 <= max_drop < math.inf:
        raise InputError(f"`max_drop` is {max_drop}", hint="give a number from 0 on, in the metric's unit")
    return sorted((d for d in compare(new, old) if d.drop > max_drop), key=lambda d: -d.drop)


def _check_tasks(new: Scores, old: Scores) -> None:
    for ours, theirs, what in ((new, old, "the baseline"), (old, new, "the new table")):
        lacking = [task for task in ours.tasks if task not in theirs.tasks]
        if lacking:
            why = theirs.missing.get(lacking[0])
            raise InputError(
                f"{what} has no score on " + ", ".join(f"`{task}`" for task in lacking),
                hint=why or nearest(lacking[0], theirs.tasks),
            )


def _counterpart(model: str, old: Scores) -> str:
    if model in old.models:
        return model
    if len(old.models) == 1:
        return old.models[0]
    raise InputError(
        f"the baseline holds {len(old.models)} models and none is called `{model}`",
        hint=nearest(model, old.models),
    )


def _several(scores: Scores, row: Score) -> bool:
    """Whether a task has several metrics."""
    return sum((each.model, each.task) == (row.model, row.task) for each in scores) > 1


def _check_rows(new: Score, old: Score) -> None:
    where = f"task `{new.task}`"
    if new.metric != old.metric:
        raise InputError(f"the new score is {new.metric}, the baseline's {old.metric}", where=where)
    if new.n != old.n:
        raise InputError(
            f"the new score is over {new.n} examples, the baseline's over {old.n}",
            where=where,
            hint="score both on the same split of the same data",
        )


def _check_data(task: str, new: Scores, old: Scores) -> None:
    ours, theirs = new.data.get(task), old.data.get(task)
    if ours and theirs and ours != theirs:
        raise InputError(
            "the new score and the baseline's are over other examples",
            where=f"task `{task}`",
            hint="score both on the same split of the same data",
        )


def _interval(new: Scores, row: Score, old: Scores, other: Score) -> tuple[float, float]:
    ours, theirs = new.evidence.get(row.key), old.evidence.get(other.key)
    if ours is None or theirs is None:
        return math.nan, math.nan
    return interval(_drawn(ours, row.task, new, new) - _drawn(theirs, row.task, old, new))


def _drawn(evidence: Evidence, task: str, own: Scores, like: Scores) -> Floats:
    """Draws of one table as the other has them."""
    if (own.seed, own.bootstrap) == (like.seed, like.bootstrap):
        return evidence.draws
    return draws([evidence.numbers], evidence.summary, task, resamples=like.bootstrap, seed=like.seed)[0]

"""Scores: a tidy table, a row for each model, task and metric, and the numbers of each example behind it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from plait.errors import InputError, MissingExtra, nearest
from plait.tasks._bootstrap import interval
from plait.tasks._metrics import Floats, Summary

#: Stands behind the name of a semi-synthetic task wherever a score is shown.
MARK = "†"
NOTE = f"{MARK} semi-synthetic: its examples were made, not found"


@dataclass(frozen=True)
class Score:
    """What one model scores on one task.

    Args:
        model, suite, task, metric: their names.
        value: the score; NaN if an output was.
        n: over how many examples.
        low, high: of its 95 % interval over examples; NaN if there is none.
        semi_synthetic: whether the examples were made up.
        higher_is_better: which way is better.
        nan: for how many examples the model gave NaN.
    """

    model: str
    suite: str
    task: str
    metric: str
    value: float
    n: int
    low: float = math.nan
    high: float = math.nan
    semi_synthetic: bool = False
    higher_is_better: bool = True
    nan: int = 0

    @property
    def key(self) -> tuple[str, str, str]:
        """Model, task and metric: what no other row of a table has."""
        return self.model, self.task, self.metric

    @property
    def label(self) -> str:
        """The task's name, marked if it is semi-synthetic."""
        return f"{self.task} {MARK}" if self.semi_synthetic else self.task

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return plain(self)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is behind a score.

    Args:
        numbers: `(n, k)`: what each example adds to the sums.
        summary: makes the score of the sums.
        draws: scores over resampled examples, `(bootstrap,)`.
    """

    numbers: Floats
    summary: Summary
    draws: Floats


@dataclass(frozen=True)
class Average:
    """The mean over tasks of what one model scores.

    Args:
        model: its name.
        metric: the tasks' own, or `normalised`: shares of the experts' scores.
        value: the mean; NaN if a score is.
        tasks: over how many.
        low, high: of its 95 % interval; NaN if there is none.
        semi_synthetic: how many of the tasks are.
    """

    model: str
    metric: str
    value: float
    tasks: int
    low: float = math.nan
    high: float = math.nan
    semi_synthetic: int = 0


@dataclass(frozen=True)
class Scores:
    """A tidy table of scores.

    Args:
        rows: one for each model and task, and each metric if a task has several.
        missing: task of the suite → why it is not there.
        evidence: (model, task, metric) → what is behind the score; empty for a table that was read.
        bootstrap, seed: how often and from which seed examples were drawn.
        data: task → fingerprint of its examples, where they are held in memory.
        untrained: tasks that were scored with a head of zeros, so that their scores say nothing.
    """

    rows: tuple[Score, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    evidence: Mapping[tuple[str, str, str], Evidence] = field(default_factory=dict, repr=False)
    bootstrap: int = 0
    seed: int = 0
    data: Mapping[str, str] = field(default_factory=dict, repr=False)
    untrained: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Score]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def models(self) -> list[str]:
        """Names of the models, in order."""
        return list(dict.fromkeys(row.model for row in self.rows))

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, in order."""
        return list(dict.fromkeys(row.task for row in self.rows))

    def score(self, model: str, task: str, metric: str | None = None) -> Score:
        """One row: of a metric, or of the task's first.

        Raises:
            InputError: there is none.
        """
        for what, name, valid in (("model", model, self.models), ("task", task, self.tasks)):
            if name not in valid:
                raise InputError(f"no score is for a {what} `{name}`", hint=nearest(name, valid))
        rows = {row.metric: row for row in self.rows if (row.model, row.task) == (model, task)}
        if not rows or metric not in (None, *rows):
            of = f"model `{model}`, task `{task}`"
            raise InputError(f"there is no {metric or 'score'}", where=of, hint=nearest(metric or "", rows))
        return rows[metric] if metric is not None else next(iter(rows.values()))

    def averages(self, experts: Scores | Mapping[str, float] | None = None) -> list[Average]:
        """For each model, the mean over tasks: one for each metric, or one of all shares of experts' scores.

        Args:
            experts: each task's own expert: task → score, or a table with a model of each task's name. With
                them, every score counts as a share of the expert's (the expert's of it, where lower is
                better). Intervals take the experts' scores as they are.

        Raises:
            InputError: a task has no expert.
        """
        shares = None if experts is None else {r.key[1:]: expert_score(experts, *r.key[1:]) for r in self}
        found = []
        for model in self.models:
            rows = [row for row in self.rows if row.model == model]
            if shares is not None:
                found.append(self._average(rows, "normalised", shares))
                continue
            metrics = dict.fromkeys(row.metric for row in rows)
            found += [self._average([r for r in rows if r.metric == each], each, {}) for each in metrics]
        return found

    def _average(self, rows: Sequence[Score], name: str, experts: Mapping[tuple[str, ...], float]) -> Average:
        def share(row: Score, values: Floats) -> Floats:
            expert = experts.get(row.key[1:])
            if expert is None:
                return values
            with np.errstate(divide="ignore", invalid="ignore"):
                return values / expert if row.higher_is_better else expert / values

        value = float(np.mean([share(row, np.array(row.value)) for row in rows]))
        behind = [self.evidence.get(row.key) for row in rows]
        drawn = [share(r, each.draws) for r, each in zip(rows, behind, strict=True) if each is not None]
        low, high = interval(np.mean(drawn, axis=0)) if len(drawn) == len(rows) else (math.nan, math.nan)
        made = sum(row.semi_synthetic for row in rows)
        return Average(rows[0].model, name, value, len(rows), low, high, made)

    def to_frame(self) -> Any:
        """As a pandas data frame, one line for each row.

        Raises:
            MissingExtra: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingExtra("pandas", "frame", "a data frame") from error
        return pd.DataFrame([asdict(row) for row in self.rows], columns=[f.name for f in fields(Score)])

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON; NaN and infinity are None."""
        return {
            "scores": [plain(row) for row in self.rows],
            "averages": [plain(each) for each in self.averages()],
            "missing": dict(self.missing),
            "untrained": list(self.untrained),
            "data": dict(self.data),
            "bootstrap": self.bootstrap,
            "seed": self.seed,
        }

    def to_json(self) -> str:
        """As JSON, without the numbers of each example."""
        return json.dumps(self.to_dict(), indent=2)

    def to_markdown(self) -> str:
        """A Markdown table: a line for each task, a column for each model."""
        from plait.tasks._markdown import markdown

        return markdown(self)

    def __str__(self) -> str:
        return self.to_markdown()


def plain(row: Any) -> dict[str, Any]:
    """A row as plain values, for JSON, which has neither NaN nor infinity: None stands for them."""
    values = asdict(row)
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def expert_score(experts: Scores | Mapping[str, float], task: str, metric: str) -> float:
    """What a task's own expert scores on it.

    Raises:
        InputError: the table has no such score.
    """
    names = experts.models if isinstance(experts, Scores) else list(experts)
    if task not in names:
        raise InputError(
            f"task `{task}` has no expert",
            where="the experts' scores",
            hint="give a mapping of tasks to scores, or a table with a model of each task's name; "
            + nearest(task, names),
        )
    return experts.score(task, task, metric).value if isinstance(experts, Scores) else float(experts[task])


def read_scores(text: str, where: str = "scores") -> Scores:
    """A table of what `Scores.to_json` wrote; without the numbers of each example, so without new intervals.

    Raises:
        InputError: it is no such table.
    """
    try:
        found = json.loads(text)
        rows = tuple(Score(**{k: _number(k, v) for k, v in row.items()}) for row in found["scores"])
        missing, data = dict(found["missing"]), dict(found["data"])
        return Scores(rows, missing, {}, int(found["bootstrap"]), int(found["seed"]), data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"these are no scores: {type(error).__name__}: {error}",
            where=where,
            hint="give what `plait evaluate MODEL --suite NAME --json` prints",
        ) from error


def _number(name: str, value: Any) -> Any:
    return math.nan if value is None and name in ("value", "low", "high") else value

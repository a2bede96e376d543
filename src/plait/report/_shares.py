"""Scores as shares of the experts', their averages, and paired tests of models against others.

A task counts once, by its first metric. A share is score / expert's, or expert's / score where lower is
better, within each seed.

The test is a paired bootstrap over examples: every model is scored on the same draws, so the draws of a
difference of averages (over tasks and seeds) need no further assumption. A t or Wilcoxon test over seeds ×
tasks would take them for independent, which seeds of one task are not, and tasks for a sample of all tasks,
which a suite is not. So tasks and seeds are fixed here, and the seeds' agreement is told beside it.

Interval and p are of one statistic, z = difference / standard deviation of its draws, taken for normal: the
standard interval of the bootstrap (Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 12) is
difference ± 1.96 deviations, and p = 2 Φ(−|z|). So the interval leaves out 0 just where p is below 0.05.
Counting draws beyond 0 could not go below 2 / draws, too coarse once p-values are corrected for all that are
tested (Holm 1979).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from plait.report._results import Results
from plait.tasks import Average, Scores

Floats = NDArray[np.float64]
LEVEL = 0.95
#: Standard deviations on either side of a normal variable's mean within which it is so often.
_REACH = NormalDist().inv_cdf((1 + LEVEL) / 2)


@dataclass(frozen=True)
class Paired:
    """A model against another, such as a way against the reference.

    Args:
        model: its name.
        value: by how much its mean share is larger; 0.01 is one point.
        low, high: of its 95 % interval, which leaves out 0 where p is below 0.05.
        tasks: on how many tasks its share is larger, averaged over seeds.
        seeds: in how many seeds its mean share is larger.
        p: two-sided; NaN where no examples are behind the scores.
        corrected: the same by Holm.
    """

    model: str
    value: float
    low: float
    high: float
    tasks: int
    seeds: int
    p: float
    corrected: float = math.nan


def firsts(scores: Scores) -> Scores:
    """Of each task, its first metric alone."""
    metric: dict[str, str] = {}
    for row in scores:
        metric.setdefault(row.task, row.metric)
    return replace(scores, rows=tuple(row for row in scores if row.metric == metric[row.task]))


def share(values: Floats, expert: float, higher_is_better: bool) -> Floats:
    """Scores as shares of an expert's."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return values / expert if higher_is_better else expert / values


def shares(results: Results) -> Floats:
    """`(models, seeds, tasks)`: scores as shares of the experts' of the same seed."""
    models, tasks = results.models, results.tasks
    found = np.empty((len(models), len(results.seeds), len(tasks)))
    for s, scores in enumerate(results.scores):
        rows = firsts(scores).rows
        experts = {row.task: row.value for row in rows if row.model == results.experts}
        for row in rows:
            of = share(np.array(row.value), experts[row.task], row.higher_is_better)
            found[models.index(row.model), s, tasks.index(row.task)] = of
    return found


def averages(results: Results) -> dict[str, Average]:
    """Model → its mean share over tasks and seeds, with the interval over examples."""
    tables = [firsts(scores) for scores in results.scores]
    return {each.model: each for each in _pooled(tables).averages(_experts(tables, results.experts))}


def seed_averages(results: Results) -> list[dict[str, Average]]:
    """The same for each seed alone."""
    tables = [[firsts(scores)] for scores in results.scores]
    pooled = [(_pooled(each), _experts(each, results.experts)) for each in tables]
    return [{each.model: each for each in scores.averages(experts)} for scores, experts in pooled]


def plain_averages(results: Results) -> dict[str, dict[str, Average]]:
    """Metric → model → the mean score of the tasks that have this metric first, over seeds."""
    found: dict[str, dict[str, Average]] = {}
    for each in _pooled([firsts(scores) for scores in results.scores]).averages():
        found.setdefault(each.metric, {})[each.model] = each
    return found


def _pooled(tables: Sequence[Scores]) -> Scores:
    """All seeds' tables as one, in which every seed's task is a task of its own."""
    rows = [replace(row, task=f"{i} {row.task}") for i, table in enumerate(tables) for row in table]
    behind = {
        (model, f"{i} {task}", metric): evidence
        for i, table in enumerate(tables)
        for (model, task, metric), evidence in table.evidence.items()
    }
    return Scores(tuple(rows), {}, behind, tables[0].bootstrap, tables[0].seed)


def _experts(tables: Sequence[Scores], experts: str) -> dict[str, float]:
    return {f"{i} {row.task}": row.value for i, t in enumerate(tables) for row in t if row.model == experts}


def paired_tests(results: Results) -> list[Paired]:
    """Base, every way, joint training and ensemble against the reference; nothing without one."""
    if results.reference is None:
        return []
    others = [m for m in results.models if m != results.reference and results.kind(m) != "experts"]
    return _paired(results, [(model, results.reference) for model in others])


@dataclass(frozen=True)
class Expectation:
    """What was expected of two models, and what came of it.

    Args:
        better: the model that should be better.
        worse: the other.
        test: of the first against the second.
    """

    better: str
    worse: str
    test: Paired

    @property
    def outcome(self) -> str:
        """`holds`, `not shown` (p ≥ 0.05), `the opposite`, or `no test` without examples."""
        if math.isnan(self.test.corrected):
            return "no test"
        if self.test.corrected >= 0.05:
            return "not shown"
        return "holds" if self.test.value > 0 else "the opposite"

    @property
    def told(self) -> str:
        """`A > B: holds (+2.1 points [1.0, 3.2], p = 0.001)`."""
        test = self.test
        between = "" if math.isnan(test.low) else f" [{100 * test.low:.1f}, {100 * test.high:.1f}]"
        known = f", p = {test.corrected:.2g}" if test.corrected >= 0.001 else ", p < 0.001"
        p = "" if math.isnan(test.corrected) else known
        return f"{self.better} > {self.worse}: {self.outcome} ({100 * test.value:+.1f} points{between}{p})"


def expectations(results: Results) -> list[Expectation]:
    """Each of `results.expected`, tested; p-values are corrected for all of them."""
    tests = _paired(results, results.expected)
    return [Expectation(*pair, test) for pair, test in zip(results.expected, tests, strict=True)]


def _paired(results: Results, pairs: Sequence[tuple[str, str]]) -> list[Paired]:
    """Models against others; p-values are corrected for all of them."""
    values, found = shares(results), []
    draws = {model: _draws(results, model) for pair in pairs for model in pair}
    for model, other in pairs:
        gap = values[results.models.index(model)] - values[results.models.index(other)]
        one, two = draws[model], draws[other]
        low, high, p = _judged(float(gap.mean()), None if one is None or two is None else one - two)
        tasks = int((gap.mean(axis=0) > 0).sum())
        found.append(Paired(model, float(gap.mean()), low, high, tasks, int((gap.mean(axis=1) > 0).sum()), p))
    corrected = holm([each.p for each in found])
    return [replace(each, corrected=p) for each, p in zip(found, corrected, strict=True)]


def _draws(results: Results, model: str) -> Floats | None:
    """`(bootstrap,)`: mean shares over resampled examples; None if one score has no examples behind it."""
    drawn = []
    for scores in results.scores:
        rows = firsts(scores).rows
        experts = {row.task: row.value for row in rows if row.model == results.experts}
        for row in (row for row in rows if row.model == model):
            behind = scores.evidence.get(row.key)
            if behind is None or not len(behind.draws):
                return None
            drawn.append(share(behind.draws, experts[row.task], row.higher_is_better))
    return np.mean(drawn, axis=0)


def _judged(value: float, draws: Floats | None) -> tuple[float, float, float]:
    """Interval and p-value of a difference."""
    draws = None if draws is None else draws[~np.isnan(draws)]
    if draws is None or not len(draws) or np.isinf(draws).any() or not math.isfinite(value):
        return math.nan, math.nan, math.nan
    deviation = float(draws.std())
    if deviation == 0:  # nothing varies: no difference at all, or one that no example tells anything of
        return (0.0, 0.0, 1.0) if value == 0 else (math.nan, math.nan, math.nan)
    reach = _REACH * deviation
    return value - reach, value + reach, math.erfc(abs(value) / deviation / math.sqrt(2))


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979); NaN stays and does not count."""
    order = sorted((i for i in range(len(p)) if not math.isnan(p[i])), key=lambda i: p[i])
    found, worst = [math.nan] * len(p), 0.0
    for place, i in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - place) * p[i]))
        found[i] = worst
    return found

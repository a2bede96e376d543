"""The tables of scores: as they are, as shares of the experts', averaged, tested."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from plait.report._notes import draws, noted, over
from plait.report._results import SINGLE, Results
from plait.report._settings import how_tuned
from plait.report._shares import (
    Paired,
    averages,
    expectations,
    paired_tests,
    plain_averages,
    seed_averages,
    shares,
)
from plait.report._table import Cell, Number, Table, places_of, spread
from plait.tasks import Average, Score, marked

BOLD = f"Bold: the best {SINGLE}."


def score_tables(results: Results) -> list[Table]:
    """All of them."""
    found = [
        _averages(results),
        _scores(results),
        _normalised(results),
        _expected(results),
        _tests(results),
        _by_seed(results),
        _tidy(results),
    ]
    return [table for table in found if table is not None]


def _best(results: Results, column: Sequence[float], higher: bool = True) -> set[str]:
    """Those of the models that compete with the best value of a column."""
    of = {
        m: v for m, v in zip(results.models, column, strict=True) if results.competes(m) and math.isfinite(v)
    }
    top = (max if higher else min)(of.values(), default=math.nan)
    return {model for model, value in of.items() if value == top} if len(of) > 1 else set()


def _scores(results: Results) -> Table:
    columns, cells = [], []
    found = [{row.key: row for row in scores} for scores in results.scores]
    for row in dict.fromkeys((row.task, row.metric) for row in results.scores[0]):
        rows = [[of[(model, *row)] for of in found] for model in results.models]
        means = [float(np.mean([each.value for each in of])) for of in rows]
        best = _best(results, means, rows[0][0].higher_is_better)
        columns.append(_head(rows[0][0]))
        places = places_of(means)
        cells.append(
            [
                spread((r.value for r in of), places, best=m in best)
                for m, of in zip(results.models, rows, strict=True)
            ]
        )
    notes = [*over(results), BOLD, *noted(results)]
    if any(not row.higher_is_better for row in results.scores[0]):
        notes.insert(1, "↓: lower is better.")
    lines = [[m, *(column[i] for column in cells)] for i, m in enumerate(results.models)]
    title = f"Score of every model on every task's {results.split} examples"
    return Table("scores", title, ["model", *columns], lines, notes)


def _head(row: Score) -> str:
    return f"{row.label}: {row.metric}{'' if row.higher_is_better else ' ↓'}"


def _normalised(results: Results) -> Table:
    values = shares(results)
    means = values.mean(axis=1)
    best = [_best(results, list(means[:, t])) for t in range(means.shape[1])]
    lines = [
        [model, *(spread(values[m, :, t], 1, 100, model in best[t]) for t in range(len(results.tasks)))]
        for m, model in enumerate(results.models)
    ]
    title = "Score as a share of the task's own expert's, in %"
    below = "expert's / score where lower is better"
    notes = [
        *over(results),
        f"Score / expert's within each seed ({below}). {BOLD}",
        *noted(results),
    ]
    return Table("normalised", title, ["model", *map(results.label, results.tasks)], lines, notes)


def _averages(results: Results) -> Table:
    pooled, seeds, plain = averages(results), seed_averages(results), plain_averages(results)
    values = shares(results).mean(axis=1)
    best = _best(results, [pooled[m].value for m in results.models])
    made = bool(results.semi_synthetic)
    columns = ["model", "kind", marked("mean share of experts, %", made)]
    columns += ["seeds' sd, points"] if len(seeds) > 1 else []
    columns += ["worst task, %", "which"]
    columns += [marked(_mean_of(metric), _any_made(of.values())) for metric, of in plain.items()]
    lines: list[list[Cell]] = []
    for m, model in enumerate(results.models):
        each = pooled[model]
        line: list[Cell] = [model, results.kind(model), _number(each, model in best)]
        if len(seeds) > 1:
            line.append(Number(float(np.std([100 * of[model].value for of in seeds], ddof=1)), digits=2))
        worst = int(np.argmin(values[m]))
        by_definition = model == results.experts  # 100 % on every task
        line += [
            "–" if by_definition else Number(100 * float(values[m, worst]), digits=1),
            "–" if by_definition else results.label(results.tasks[worst]),
        ]
        line += [Number(of[model].value, None, of[model].low, of[model].high) for of in plain.values()]
        lines.append(line)
    notes = [
        f"{_bracketed(results)}, the experts' scores taken as they are.",
        BOLD,
        *how_tuned(results),
        *noted(results),
    ]
    return Table("averages", "Average over tasks of the share of the experts' scores", columns, lines, notes)


def _bracketed(results: Results) -> str:
    return f"[ ]: 95 % interval by bootstrap over {results.split} examples"


def _mean_of(metric: str) -> str:
    """The name of a metric's mean over tasks, which some metrics' own names begin like."""
    return f"{metric}, averaged" if metric.startswith("mean ") else f"mean {metric}"


def _any_made(of: Iterable[Average]) -> bool:
    return any(each.semi_synthetic for each in of)


def _number(each: Average, best: bool = False) -> Number:
    return Number(100 * each.value, None, 100 * each.low, 100 * each.high, 1, best)


def _by_seed(results: Results) -> Table | None:
    if len(results.seeds) < 2:
        return None
    of = seed_averages(results)
    lines = [[model, *(_number(each[model]) for each in of)] for model in results.models]
    columns = ["model", *(marked(f"seed {seed}", bool(results.semi_synthetic)) for seed in results.seeds)]
    title = "Mean share of the experts' scores in each seed, in %"
    return Table("averages_by_seed", title, columns, lines, noted(results))


def _expected(results: Results) -> Table | None:
    """What was expected, and what came of it."""
    found = expectations(results)
    if not found:
        return None
    seeds = len(results.seeds)
    lines = [
        [
            f"{each.better} > {each.worse}",
            _points(each.test),
            f"{each.test.seeds} of {seeds}",
            _p(each.test.corrected),
            each.outcome,
        ]
        for each in found
    ]
    columns = ["expected", marked("difference, points", bool(results.semi_synthetic))]
    columns += ["seeds better", "p (Holm)", "outcome"]
    return Table(
        "expected", "What was expected beforehand", columns, lines, [draws(results), *noted(results)]
    )


def _tests(results: Results) -> Table | None:
    found = paired_tests(results)
    if not found:
        return None
    count, seeds = len(results.tasks), len(results.seeds)
    lines = [
        [
            each.model,
            _points(each),
            f"{each.tasks} of {count}",
            f"{each.seeds} of {seeds}",
            _p(each.p),
            _p(each.corrected),
            verdict(each, seeds),
        ]
        for each in found
    ]
    columns = ["model", "difference, points", "tasks better", "seeds better", "p", "p (Holm)", "verdict"]
    columns[1] = marked(columns[1], bool(results.semi_synthetic))
    return Table("tests", f"Against {results.reference}", columns, lines, [draws(results), *noted(results)])


def _points(test: Paired) -> Number:
    return Number(100 * test.value, None, 100 * test.low, 100 * test.high, 1)


def _p(value: float) -> Cell:
    return "–" if math.isnan(value) else Number(value, digits=4, tiny=True)


def verdict(test: Paired, seeds: int) -> str:
    """What the corrected p-value and the seeds say together."""
    if math.isnan(test.corrected):
        return "no test"
    if test.corrected >= 0.05:
        return "no clear difference"
    word, agree = ("better", test.seeds) if test.value > 0 else ("worse", seeds - test.seeds)
    return word if agree == seeds else f"{word}, not in every seed"


def _tidy(results: Results) -> Table:
    lines = [
        [
            row.model,
            row.label,
            row.metric,
            str(seed),
            Number(row.value, None, row.low, row.high, digits=4),
            str(row.n),
            str(row.nan),
        ]
        for seed, scores in zip(results.seeds, results.scores, strict=True)
        for row in scores
    ]
    columns = ["model", "task", "metric", "seed", "score", "examples", "NaN examples"]
    notes = [f"{_bracketed(results)}.", *noted(results)]
    return Table("scores_by_seed", "Every score of every seed", columns, lines, notes)

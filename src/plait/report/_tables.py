"""Every table of a report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from plait.report._results import Results, Trial
from plait.report._shares import Floats, Paired, averages, plain_averages, seed_averages, shares, tests
from plait.report._table import Cell, Number, Table
from plait.tasks import NOTE, Average, Score, marked

DRAWS = (
    "Difference of the mean shares in points, with the 95 % interval of a paired bootstrap over test "
    "examples; tasks and seeds are taken as they are. p: two-sided, the difference over the standard "
    "deviation of its draws; corrected by Holm for all that are tested."
)


def tables(results: Results) -> list[Table]:
    """All that there is something to say about."""
    found = [
        _averages(results),
        _scores(results),
        _normalised(results),
        _tests(results),
        _by_seed(results),
        _tuning(results),
        _trials(results),
        *_similarity(results),
        _costs(results),
        _missing(results),
        _tidy(results),
    ]
    return [table for table in found if table is not None]


def _spread(values: Iterable[float], digits: int = 3, scale: float = 1.0, best: bool = False) -> Number:
    """Mean over seeds and, of several, their standard deviation."""
    array = np.asarray(list(values), dtype=np.float64) * scale
    with np.errstate(invalid="ignore"):
        sd = float(array.std(ddof=1)) if len(array) > 1 else None
    return Number(float(array.mean()), sd, digits=digits, best=best)


def _places(values: Iterable[float]) -> int:
    """How many digits after the point a column's numbers need."""
    largest = max((abs(v) for v in values if math.isfinite(v)), default=1.0)
    return 3 if largest < 10 else 2 if largest < 100 else 1


def _noted(results: Results) -> list[str]:
    return [f"{NOTE}."] if results.semi_synthetic else []


def _over(results: Results) -> list[str]:
    count = len(results.seeds)
    return [f"Mean ± standard deviation over {count} seeds."] if count > 1 else ["One seed."]


def _best(results: Results, column: Sequence[float], higher: bool = True) -> set[str]:
    """The merges with the best value of a column."""
    of = {
        m: v for m, v in zip(results.models, column, strict=True) if competes(results, m) and math.isfinite(v)
    }
    top = (max if higher else min)(of.values(), default=math.nan)
    return {model for model, value in of.items() if value == top} if len(of) > 1 else set()


def competes(results: Results, model: str) -> bool:
    """Whether a model is one of the ways, not a starting point or a bound."""
    return results.kind(model) not in ("base", "joint", "ensemble", "experts")


def _scores(results: Results) -> Table:
    columns, cells = [], []
    found = [{row.key: row for row in scores} for scores in results.scores]
    for row in dict.fromkeys((row.task, row.metric) for row in results.scores[0]):
        rows = [[of[(model, *row)] for of in found] for model in results.models]
        means = [float(np.mean([each.value for each in of])) for of in rows]
        best = _best(results, means, rows[0][0].higher_is_better)
        columns.append(_head(rows[0][0]))
        places = _places(means)
        cells.append(
            [
                _spread((r.value for r in of), places, best=m in best)
                for m, of in zip(results.models, rows, strict=True)
            ]
        )
    notes = [*_over(results), "Bold: the best way.", *_noted(results)]
    if any(not row.higher_is_better for row in results.scores[0]):
        notes.insert(1, "↓: lower is better.")
    lines = [[m, *(column[i] for column in cells)] for i, m in enumerate(results.models)]
    return Table(
        "scores", "Score of every model on every task's test examples", ["model", *columns], lines, notes
    )


def _head(row: Score) -> str:
    return f"{row.label}: {row.metric}{'' if row.higher_is_better else ' ↓'}"


def _normalised(results: Results) -> Table:
    values = shares(results)
    means = values.mean(axis=1)
    best = [_best(results, list(means[:, t])) for t in range(means.shape[1])]
    lines = [
        [model, *(_spread(values[m, :, t], 1, 100, model in best[t]) for t in range(len(results.tasks)))]
        for m, model in enumerate(results.models)
    ]
    title = "Score as a share of the task's own expert's, in %"
    below = "expert's / score where lower is better"
    notes = [
        *_over(results),
        f"Score / expert's within each seed ({below}). Bold: the best way.",
        *_noted(results),
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
    columns += [marked(f"mean {metric}", _any_made(of.values())) for metric, of in plain.items()]
    lines: list[list[Cell]] = []
    for m, model in enumerate(results.models):
        each = pooled[model]
        line: list[Cell] = [model, results.kind(model), _number(each, model in best)]
        if len(seeds) > 1:
            line.append(Number(float(np.std([100 * of[model].value for of in seeds], ddof=1)), digits=2))
        worst = int(np.argmin(values[m]))
        line += [Number(100 * float(values[m, worst]), digits=1), results.label(results.tasks[worst])]
        line += [Number(of[model].value, None, of[model].low, of[model].high) for of in plain.values()]
        lines.append(line)
    notes = [
        "[ ]: 95 % interval by bootstrap over test examples, the experts' scores taken as they are.",
        "Bold: the best way.",
        *_noted(results),
    ]
    return Table("averages", "Average over tasks of the share of the experts' scores", columns, lines, notes)


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
    return Table("averages_by_seed", title, columns, lines, _noted(results))


def _tests(results: Results) -> Table | None:
    found = tests(results)
    if not found:
        return None
    count, seeds = len(results.tasks), len(results.seeds)
    lines = [
        [
            each.model,
            Number(100 * each.value, None, 100 * each.low, 100 * each.high, 1),
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
    return Table("tests", f"Against {results.reference}", columns, lines, [DRAWS, *_noted(results)])


def _p(value: float) -> Cell:
    return "–" if math.isnan(value) else Number(value, digits=4)


def verdict(test: Paired, seeds: int) -> str:
    """What the corrected p-value and the seeds say together."""
    if math.isnan(test.corrected):
        return "no test"
    if test.corrected >= 0.05:
        return "no clear difference"
    word, agree = ("better", test.seeds) if test.value > 0 else ("worse", seeds - test.seeds)
    return word if agree == seeds else f"{word}, not in every seed"


def by_way(trials: Sequence[Trial]) -> dict[tuple[str, str], list[Trial]]:
    """Trials of each way and metric."""
    found: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        found.setdefault((trial.way, trial.metric), []).append(trial)
    return found


def _tuning(results: Results) -> Table | None:
    if not results.trials:
        return None
    lines: list[list[Cell]] = []
    for (way, metric), trials in by_way(results.trials).items():
        seeds = [[t for t in trials if t.seed == seed] for seed in dict.fromkeys(t.seed for t in trials)]
        chosen = [trial for trial in trials if trial.chosen]
        places = _places(trial.value for trial in trials)
        worst, best = zip(*map(_ends, seeds), strict=True)
        line: list[Cell] = [way, metric, str(max(map(len, seeds))), _chosen(chosen)]
        line.append(_spread((trial.value for trial in chosen), places) if chosen else "–")
        line += [_spread(worst, places), _spread(best, places)]
        line.append(_spread(np.abs(np.subtract(best, worst)), places))
        lines.append(line)
    columns = ["way", "metric", "settings tried", "chosen", "chosen's score", "worst", "best", "sensitivity"]
    if results.semi_synthetic:
        columns[4] = marked(columns[4], True)
    budget = [] if results.budget is None else [f"Budget: {results.budget} settings for each way and seed."]
    budget += ["a/b/c: chosen in each seed."] if len({t.seed for t in results.trials}) > 1 else []
    notes = [*budget, "Sensitivity: best − worst validation score over the settings tried.", *_over(results)]
    title = "Tuning on validation examples, never on test examples"
    return Table("tuning", title, columns, lines, [*notes, *_noted(results)])


def _chosen(trials: Sequence[Trial]) -> str:
    """Options of the chosen settings: one value where all seeds agree, one for each seed elsewhere."""
    options: dict[str, list[str]] = {}
    for trial in trials:
        for name, value in trial.setting.items():
            options.setdefault(name, []).append(f"{value:g}" if isinstance(value, float) else str(value))
    agreed = {name: of[:1] if len(set(of)) == 1 else of for name, of in options.items()}
    return ", ".join(f"{name}={'/'.join(of)}" for name, of in agreed.items()) or "–"


def _ends(trials: Sequence[Trial]) -> tuple[float, float]:
    """Worst and best of those that are numbers."""
    values = [trial.value for trial in trials if math.isfinite(trial.value)] or [math.nan]
    ends = min(values), max(values)
    return ends if trials[0].higher_is_better else (ends[1], ends[0])


def _trials(results: Results) -> Table | None:
    if not results.trials:
        return None
    lines = [
        [t.way, str(t.seed), t.told, t.metric, Number(t.value, digits=4), "chosen" if t.chosen else "–"]
        for t in results.trials
    ]
    columns = ["way", "seed", "setting", "metric", marked("score", bool(results.semi_synthetic)), "choice"]
    return Table("trials", "Every setting tried on validation examples", columns, lines, _noted(results))


def _similarity(results: Results) -> list[Table]:
    alike = results.similarity
    if alike is None:
        return []
    names = [results.label(name) for name in alike.names]
    lines = [
        [name, *(Number(float(v), digits=2) for v in row)]
        for name, row in zip(names, alike.cosine, strict=True)
    ]
    found = [Table("cosine", "Cosines between task vectors", ["task vector of", *names], lines)]
    if len(alike.layers):
        columns = ["layer", "opposing entries, %"]
        shown: Floats = 100 * np.asarray(alike.conflict, dtype=np.float64)
        rows = [[layer, Number(float(v), digits=1)] for layer, v in zip(alike.layers, shown, strict=True)]
        found.append(Table("conflict", "Entries that experts pull in opposite directions", columns, rows))
    return found


def _costs(results: Results) -> Table | None:
    if not results.costs:
        return None
    lines = [
        [c.step, Number(c.seconds, digits=1), Number(c.peak_mb, digits=0), "cached" if c.cached else "run"]
        for c in results.costs
    ]
    notes = ["Cached: found, not run this time; its numbers are those of the run that made it."]
    return Table(
        "costs", "Time and memory of each step", ["step", "seconds", "peak MB", "this time"], lines, notes
    )


def _missing(results: Results) -> Table | None:
    why = dict(results.missing)
    for scores in results.scores:
        why |= scores.missing
    lines = [[task, reason] for task, reason in why.items()]
    return Table("missing", "Tasks that are missing", ["task", "why"], lines) if lines else None


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
    notes = ["[ ]: 95 % interval by bootstrap over test examples.", *_noted(results)]
    return Table("scores_by_seed", "Every score of every seed", columns, lines, notes)

"""Every table of a report, and those that hold no scores of models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from plait.report._headline import favour
from plait.report._results import Results, Trial
from plait.report._score_tables import noted, over, score_tables
from plait.report._table import Cell, Number, Table, places_of, spread
from plait.tasks import marked

_NO_NUMBER = (
    "No number: so many settings, all seeds together, failed or have a score that is NaN or infinite; "
    "worst, best and sensitivity are of the others, and – where a seed has no others."
)


def tables(results: Results) -> list[Table]:
    """All that there is something to say about."""
    others = [_reached(results), _tuning(results), _trials(results), *_similarity(results)]
    others += [_costs(results), _missing(results)]
    return [*score_tables(results), *(table for table in others if table is not None)]


def by_way(trials: Sequence[Trial]) -> dict[tuple[str, str], list[Trial]]:
    """Trials of each way and metric."""
    found: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        found.setdefault((trial.way, trial.metric), []).append(trial)
    return found


def _tuning(results: Results) -> Table | None:
    if not results.trials:
        return None
    metrics = list(dict.fromkeys(trial.metric for trial in results.trials))
    broken = without_number(results.trials)
    lines: list[list[Cell]] = []
    for (way, metric), trials in by_way(results.trials).items():
        seeds = [[t for t in trials if t.seed == seed] for seed in dict.fromkeys(t.seed for t in trials)]
        chosen = [trial for trial in trials if trial.chosen]
        places = places_of(trial.value for trial in trials)
        worst, best = zip(*map(_ends, seeds), strict=True)
        line: list[Cell] = [way, *([metric] if len(metrics) > 1 else []), str(max(map(len, seeds)))]
        line += [_counted(without_number(trials), trials)] if broken else []
        line += [_chosen(chosen), spread((trial.value for trial in chosen), places) if chosen else "–"]
        line += [spread(worst, places), spread(best, places)]
        span = np.abs(np.subtract(best, worst))
        lines.append([*line, "–" if np.isnan(span).any() else spread(span, places)])
    scores = [marked(name, bool(results.semi_synthetic)) for name in ("chosen's score", "worst", "best")]
    columns = ["way", *(["metric"] if len(metrics) > 1 else []), "tried", *(["no number"] if broken else [])]
    columns += ["chosen", *scores, "sensitivity"]
    notes = [] if results.budget is None else [f"Budget: {results.budget} settings for each way and seed."]
    notes += ["a/b/c: chosen in each seed."] if len({t.seed for t in results.trials}) > 1 else []
    notes += [favour(results)] if results.favoured else []
    notes += [_NO_NUMBER] if broken else []
    notes += ["Sensitivity: best − worst score over the settings tried.", *over(results), *noted(results)]
    about = f" ({metrics[0]})" if len(metrics) == 1 else ""
    other = "the same that are scored" if results.favoured else f"never on {results.split} examples"
    title = f"Tuning on {results.tuned_on} examples, {other}{about}"
    return Table("tuning", title, columns, lines, notes)


def without_number(trials: Sequence[Trial]) -> list[Trial]:
    """Settings that failed, or whose score is NaN or infinite."""
    return [trial for trial in trials if not math.isfinite(trial.value)]


def _counted(some: Sequence[Trial], trials: Sequence[Trial]) -> str:
    return f"{len(some)} of {len(trials)}" if some else "–"


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
    return Table(
        "trials", f"Every setting tried on {results.tuned_on} examples", columns, lines, noted(results)
    )


def _reached(results: Results) -> Table | None:
    """Ways down, tasks across, and the last of them: when all were reached."""
    if not results.reached:
        return None
    times = {(r.model, r.task, r.seed): r.time for r in results.reached}
    models, tasks, seeds = (list(dict.fromkeys(each)) for each in zip(*times, strict=True))
    lines: list[list[Cell]] = []
    for model in models:
        each = [[times[model, t, s] for s in seeds if (model, t, s) in times] for t in tasks]
        last = [[time for (m, _, s), time in times.items() if (m, s) == (model, seed)] for seed in seeds]
        lines.append([model, *map(_time, [*each, [float(np.max(own)) for own in last if own]])])
    notes = [*_targets(results), "–: not reached in every seed.", *over(results), *noted(results)]
    title = "Simulated time until a score was reached"
    return Table("reached", title, ["way", *map(results.label, tasks), "all"], lines, notes)


def _time(times: Sequence[float]) -> Cell:
    """A time of each seed, as their mean; if some never came, a mean of the others would say too little."""
    reached = sum(not math.isnan(time) for time in times)
    if times and reached == len(times):
        return spread(times, 1)
    return "–" if len(times) < 2 else f"– ({reached} of {len(times)} seeds)"


def _targets(results: Results) -> list[str]:
    """What was wanted: a sentence for all ways, or one for each target that some of them had."""
    wanted: dict[str, list[str]] = {}
    for model in dict.fromkeys(each.model for each in results.reached):
        own = {r.task: r.target for r in results.reached if r.model == model}
        told = ", ".join(f"{results.label(task)} {target:g}" for task, target in own.items())
        wanted.setdefault(told, []).append(model)
    if len(wanted) == 1:
        return [f"Wanted on validation examples: {told}." for told in wanted]
    return [f"Wanted on validation examples of {', '.join(of)}: {told}." for told, of in wanted.items()]


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
        shown = 100 * np.asarray(alike.conflict, dtype=np.float64)
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

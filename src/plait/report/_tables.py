"""Every table of a report, and those that hold no scores of models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from plait.report._notes import noted, over
from plait.report._results import Results
from plait.report._score_tables import score_tables
from plait.report._table import Cell, Number, Table, spread
from plait.report._tuning import tuning_tables


def tables(results: Results) -> list[Table]:
    """All that there is something to say about."""
    others = [_reached(results), *tuning_tables(results), *_similarity(results)]
    others += [_costs(results), _missing(results)]
    return [*score_tables(results), *(table for table in others if table is not None)]


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
    notes = [
        "Seconds: of all pieces of a step that was killed and gone on with. MB: 10⁶ bytes.",
        "Cached: found, not run this time; its numbers are those of the run that made it.",
    ]
    return Table(
        "costs", "Time and memory of each step", ["step", "seconds", "peak MB", "this time"], lines, notes
    )


def _missing(results: Results) -> Table | None:
    why = dict(results.missing)
    for scores in results.scores:
        why |= scores.missing
    lines = [[task, reason] for task, reason in why.items()]
    return Table("missing", "Tasks that are missing", ["task", "why"], lines) if lines else None

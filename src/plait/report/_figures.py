"""Every figure of a report, and what is to be seen in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from plait.report._notes import noted
from plait.report._palette import MEMBERS, kind
from plait.report._results import Cost, Results
from plait.report._shapes import Bars, Dot, Dots, Figure, Heat, Line, Lines, Series
from plait.report._shares import averages, seed_averages, shares
from plait.report._table import digits
from plait.report._tuning import tuning_figures
from plait.tasks import marked

#: Points of a curve that are drawn; more can't be told apart.
_POINTS = 400
#: Steps that are drawn; more bars than that have no room for their names.
_STEPS = 30
#: Members of one colour, in order.
_DASHES: tuple[Literal["solid", "dash", "dot", "dashdot"], ...] = ("solid", "dash", "dot", "dashdot")
#: Models that a caption lists.
_TOLD = 12


def figures(results: Results) -> list[Figure]:
    """All that there is something to see of."""
    found = [_averages(results), _heat(results), *_similarity(results), *_curves(results)]
    return [figure for figure in [*found, *tuning_figures(results), _costs(results)] if figure is not None]


def role(results: Results, model: str) -> str:
    """The colour of a model."""
    return "reference" if model == results.reference else kind(results.kind(model))


def _averages(results: Results) -> Figure:
    pooled, seeds = averages(results), seed_averages(results)
    value = {model: 100 * pooled[model].value for model in results.models}
    order = sorted(results.models, key=lambda m: -value[m] if math.isfinite(value[m]) else math.inf)
    series = []
    if len(seeds) > 1:
        behind = [Dot(m, 100 * of[m].value) for m in order for of in seeds if math.isfinite(of[m].value)]
        series.append(Series("one seed", "muted", behind, "ring"))
    for colour in dict.fromkeys(role(results, model) for model in order):
        models = [m for m in order if role(results, m) == colour and math.isfinite(value[m])]
        dots = [Dot(m, value[m], *_ends(pooled[m].low, pooled[m].high)) for m in models]
        series.append(Series(str(results.reference) if colour == "reference" else colour, colour, dots))
    unit = marked("mean share of the experts' scores, %", bool(results.semi_synthetic))
    rings = ["Rings: each seed."] if len(seeds) > 1 else []
    bars = f"bars: 95 % interval over {results.split} examples"
    notes = [f"Points: mean over tasks and seeds; {bars}.", *rings]
    told = [f"{m} {digits(value[m], 1)} %" for m in order]
    told = told if len(told) <= _TOLD else [*told[: _TOLD - 1], "…", told[-1]]
    seen = f"From best to worst: {', '.join(told)}."
    shape = Dots(order, series, unit, [100.0])
    title = "How much of the experts each way keeps"
    return Figure("averages", title, seen, shape, [*notes, "Dotted line: the experts.", *noted(results)])


def _ends(low: float, high: float) -> tuple[float | None, float | None]:
    return (None, None) if math.isnan(low) else (100 * low, 100 * high)


def _heat(results: Results) -> Figure:
    values = 100 * shares(results).mean(axis=1)
    text = [[digits(float(v), 0) for v in row] for row in values]
    tasks = [results.label(task) for task in results.tasks]
    low, high = _scale(results, values)
    cells = [(v, m, t) for (m, t), v in np.ndenumerate(values) if math.isfinite(v)]
    trained = [cell for cell in cells if results.kind(results.models[cell[1]]) not in ("base", "experts")]
    seen = "Nothing here is a number."
    if cells:
        _, m, t = min(trained or cells)
        least = "Apart from the base, the" if trained else "The"
        seen = f"{least} least is kept by {results.models[m]} on {tasks[t]}: {text[m][t]} %."
    shape = Heat(tasks, results.models, values, text, "rising", low, high, "% of the expert's score")
    title = "What each way keeps on each task"
    notes = [
        "Numbers: score as a percentage of the task's own expert's, mean over seeds.",
        f"Colours from {digits(low, 0)} % and less to {digits(high, 0)} %.",
        *noted(results),
    ]
    return Figure("normalised", title, seen, shape, notes)


def _scale(results: Results, values: NDArray[np.float64]) -> tuple[float, float]:
    """Ends of the colours: the base, far below, must not make all others look alike."""
    rows = [m for m, model in enumerate(results.models) if results.kind(model) != "base"]
    finite = values[rows][np.isfinite(values[rows])]
    low = 10 * math.floor(finite.min() / 10) if len(finite) else 0
    return float(min(low, 90)), float(max(100, finite.max() if len(finite) else 100))


def _similarity(results: Results) -> list[Figure]:
    alike = results.similarity
    if alike is None:
        return []
    names = [results.label(name) for name in alike.names]
    cosine = np.asarray(alike.cosine, dtype=np.float64)
    text = [[digits(float(v), 2) for v in row] for row in cosine]
    found = []
    if len(names) > 1:
        apart = cosine[~np.eye(len(names), dtype=bool)]
        least, most = digits(float(apart.min()), 2), digits(float(apart.max()), 2)
        seen = f"Between different tasks, cosines go from {least} to {most}."
        shape = Heat(names, names, cosine, text, "signed", -1.0, 1.0, "cosine")
        found.append(Figure("cosine", "How alike the task vectors are", seen, shape))
    if len(alike.layers):
        conflict = 100 * np.asarray(alike.conflict, dtype=np.float64)
        top = int(np.argmax(np.nan_to_num(conflict, nan=-1.0)))
        most, mean = digits(float(conflict[top]), 1), digits(float(conflict.mean()), 1)
        seen = f"Most in {alike.layers[top]} ({most} %); {mean} % in the mean over layers."
        bars = Bars(list(alike.layers), {"entries with opposing signs, %": [float(v) for v in conflict]})
        found.append(Figure("conflict", "Where experts pull in opposite directions", seen, bars))
    return found


def _curves(results: Results) -> list[Figure]:
    """A figure for each thing that is counted from left to right."""
    counted = list(dict.fromkeys(curve.x for curve in results.curves))
    return [_curves_over(results, x, place) for place, x in enumerate(counted)]


def _curves_over(results: Results, counted: str, number: int) -> Figure:
    curves = [curve for curve in results.curves if curve.x == counted]
    members = sorted(dict.fromkeys(curve.member for curve in curves), key=lambda each: _of_way(results, each))
    ways = [member for member in members if _of_way(results, member)]
    mixed = 0 < len(ways) < len(members)
    panels: dict[str, list[Line]] = {}
    for curve in curves:
        place = members.index(curve.member)
        thin = np.unique(np.linspace(0, max(len(curve.step) - 1, 0), _POINTS).astype(int))[: len(curve.step)]
        dash = _DASHES[(place // MEMBERS + (mixed and curve.member in ways)) % len(_DASHES)]
        x, y = np.asarray(curve.step)[thin], np.asarray(curve.value, dtype=np.float64)[thin]
        line = Line(results.label(curve.member), f"member{place % MEMBERS}", dash, x, y)
        panels.setdefault(curve.kind, []).append(line)
    counts = {kind: len({line.name for line in of}) for kind, of in panels.items()}
    ends = [f"{kind} ({count} member{'s' * (count > 1)})" for kind, count in counts.items()]
    seen = f"A line for each member and seed: {'; '.join(ends)}."
    title = "How training went" + (f", over {counted}" if number else "")
    name = "curves" if number == 0 else f"curves_{number + 1}"
    levels = {
        kind: sorted({c.target for c in curves if c.kind == kind and c.target is not None}) for kind in panels
    }
    notes = ["Dotted lines across: the scores that were wanted."] if any(levels.values()) else []
    if mixed and len(members) <= MEMBERS:
        notes.append(f"Dashed: {', '.join(ways)}." if len(ways) <= _TOLD else "Dashed: ways that train.")
    shape = Lines(dict(panels), counted, levels)
    return Figure(name, title, seen, shape, [*notes, *noted(results)])


def _of_way(results: Results, member: str) -> bool:
    """Whether a curve is of a way that trains, not of an expert or the base."""
    model = member.partition(": ")[0]
    return model in results.models and results.kind(model) not in ("base", "experts")


def _costs(results: Results) -> Figure | None:
    if not results.costs:
        return None
    costs, notes = _longest(results.costs)
    panels = {"seconds": [c.seconds for c in costs], "peak MB": [c.peak_mb for c in costs]}
    run = [c.seconds for c in results.costs if not c.cached and math.isfinite(c.seconds)]
    cached = sum(c.cached for c in results.costs)
    ran = f"{len(results.costs) - cached} steps were run, in {digits(sum(run), 1)} s together"
    seen = f"{ran}; {cached} were cached."
    shape = Bars([c.step for c in costs], panels, [c.cached for c in costs], "run", "cached")
    return Figure("costs", "What each step took", seen, shape, notes)


def _longest(costs: Sequence[Cost]) -> tuple[list[Cost], list[str]]:
    """Steps as they are drawn, and what to know: of many, those that took longest and a row of the rest."""
    if len(costs) <= _STEPS + 1:
        return list(costs), []
    took = [c.seconds if math.isfinite(c.seconds) else -1.0 for c in costs]
    drawn = sorted(sorted(range(len(costs)), key=lambda place: -took[place])[:_STEPS])
    rest = [c for place, c in enumerate(costs) if place not in drawn]
    name = f"{len(rest)} shorter steps"
    seconds = sum(c.seconds for c in rest if math.isfinite(c.seconds))
    most = max((c.peak_mb for c in rest if math.isfinite(c.peak_mb)), default=math.nan)
    note = (
        f"The {_STEPS} steps that took longest; of the {len(rest)} others, seconds are summed and "
        "memory is the most of any. The table has every step."
    )
    return [*(costs[place] for place in drawn), Cost(name, seconds, most, all(c.cached for c in rest))], [
        note
    ]

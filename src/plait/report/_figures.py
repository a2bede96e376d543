"""Every figure of a report, and what is to be seen in it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from plait.report._palette import MEMBERS, kind
from plait.report._results import Results
from plait.report._shapes import Bars, Dot, Dots, Figure, Heat, Line, Lines, Series
from plait.report._shares import averages, seed_averages, shares
from plait.report._table import digits
from plait.report._tables import by_way
from plait.tasks import NOTE, marked

#: Points of a curve that are drawn; more can't be told apart.
_POINTS = 400


def figures(results: Results) -> list[Figure]:
    """All that there is something to see of."""
    found = [_averages(results), _heat(results), *_similarity(results), _curves(results)]
    return [figure for figure in [*found, *_tuning(results), _costs(results)] if figure is not None]


def _noted(results: Results) -> list[str]:
    return [NOTE] if results.semi_synthetic else []


def role(results: Results, model: str) -> str:
    """The colour of a model."""
    return "reference" if model == results.reference else kind(results.kind(model))


def _averages(results: Results) -> Figure:
    pooled, seeds = averages(results), seed_averages(results)
    order = sorted(
        results.models, key=lambda m: -pooled[m].value if math.isfinite(pooled[m].value) else math.inf
    )
    named = {role(results, m): m if role(results, m) == "reference" else results.kind(m) for m in order}
    series = []
    if len(seeds) > 1:
        behind = [
            Dot(m, 100 * of[m].value, told=f"seed {s}") for m in order for s, of in zip(results.seeds, seeds)
        ]
        series.append(Series("one seed", "muted", [d for d in behind if math.isfinite(d.value)], "ring"))
    for colour, name in named.items():
        models = [m for m in order if role(results, m) == colour and math.isfinite(pooled[m].value)]
        dots = [Dot(m, 100 * (e := pooled[m]).value, *_ends(e.low, e.high)) for m in models]
        series.append(Series(name, colour, dots))
    shown = [f"{m} {digits(100 * pooled[m].value, 1)} %" for m in order]
    unit = marked("mean share of the experts' scores, %", bool(results.semi_synthetic))
    notes = ["Points: mean over tasks and seeds; bars: 95 % interval over test examples; rings: each seed."]
    seen = f"From best to worst: {', '.join(shown)}."
    title = "How much of the experts each way keeps"
    lines = [(100.0, "the experts")]
    return Figure("averages", title, seen, Dots(order, series, unit, lines), [*notes, *_noted(results)])


def _ends(low: float, high: float) -> tuple[float | None, float | None]:
    return (None, None) if math.isnan(low) else (100 * low, 100 * high)


def _heat(results: Results) -> Figure:
    values = 100 * shares(results).mean(axis=1)
    finite = values[np.isfinite(values)]
    low = float(finite.min()) if len(finite) else 0.0
    high = max(100.0, float(finite.max()) if len(finite) else 100.0)
    text = [[digits(float(v), 0) for v in row] for row in values]
    tasks = [results.label(task) for task in results.tasks]
    others = [m for m, model in enumerate(results.models) if results.kind(model) != "experts"]
    seen = "No score is a number."
    if np.isfinite(values[others]).any():
        m, t = np.unravel_index(
            int(np.nanargmin(np.where(np.isfinite(values[others]), values[others], np.nan))),
            (len(others), len(tasks)),
        )
        seen = f"The least is kept by {results.models[others[m]]} on {tasks[t]}: {text[others[m]][t]} %."
    shape = Heat(
        tasks, results.models, values, text, "rising", min(low, 99.0), high, "% of the expert's score"
    )
    title = "What each way keeps on each task"
    notes = ["Numbers: score as a percentage of the task's own expert's, mean over seeds."]
    return Figure("normalised", title, seen, shape, [*notes, *_noted(results)])


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
        seen = f"Between different tasks, cosines go from {digits(float(apart.min()), 2)} to {digits(float(apart.max()), 2)}."
        shape = Heat(names, names, cosine, text, "signed", -1.0, 1.0, "cosine")
        found.append(Figure("cosine", "How alike the task vectors are", seen, shape))
    if len(alike.layers):
        conflict = 100 * np.asarray(alike.conflict, dtype=np.float64)
        most = int(np.argmax(conflict))
        seen = f"Most in {alike.layers[most]} ({digits(float(conflict[most]), 1)} %), {digits(float(conflict.mean()), 1)} % in the mean over layers."
        bars = Bars(list(alike.layers), {"entries with opposing signs, %": [float(v) for v in conflict]})
        found.append(Figure("conflict", "Where experts pull in opposite directions", seen, bars))
    return found


def _curves(results: Results) -> Figure | None:
    if not results.curves:
        return None
    members = list(dict.fromkeys(curve.member for curve in results.curves))
    panels: dict[str, list[Line]] = {}
    for curve in results.curves:
        place = members.index(curve.member)
        thin = np.unique(np.linspace(0, max(len(curve.step) - 1, 0), _POINTS).astype(int))[: len(curve.step)]
        dash = ("solid", "dash", "dot")[place // MEMBERS % 3]
        x, y = np.asarray(curve.step)[thin], np.asarray(curve.value, dtype=np.float64)[thin]
        line = Line(results.label(curve.member), f"member{place % MEMBERS}", dash, x, y)
        panels.setdefault(curve.kind, []).append(line)
    ends = [f"{kind} of {len({line.name for line in of})} members" for kind, of in panels.items()]
    seen = f"{'; '.join(ends)}, a line for each member and seed."
    return Figure("curves", "How training went", seen, Lines(dict(panels), "step"), _noted(results))


def _tuning(results: Results) -> list[Figure]:
    found = []
    metrics = list(dict.fromkeys(trial.metric for trial in results.trials))
    for place, metric in enumerate(metrics):
        trials = [trial for trial in results.trials if trial.metric == metric]
        rows = list(dict.fromkeys(trial.way for trial in trials))
        dots: dict[bool, list[Dot]] = {False: [], True: []}
        for trial in trials:
            if math.isfinite(trial.value):
                dots[trial.chosen].append(
                    Dot(trial.way, trial.value, told=f"{trial.told} (seed {trial.seed})")
                )
        series = [
            Series("tried", "muted", dots[False], "ring"),
            Series("chosen", "merge", dots[True], "diamond"),
        ]
        ranges = {way: _range([t.value for t in of]) for (way, _), of in by_way(trials).items()}
        widest = max(ranges, key=lambda way: ranges[way])
        seen = f"{widest} depends most on its setting: its scores spread over {digits(ranges[widest], 3)}."
        unit = marked(f"validation score: {metric}", bool(results.semi_synthetic))
        name = "tuning" if place == 0 else f"tuning_{place + 1}"
        title = "Tuning: every setting tried, and the one chosen"
        found.append(Figure(name, title, seen, Dots(rows, series, unit), _noted(results)))
    return found


def _range(values: Sequence[float]) -> float:
    finite = [v for v in values if math.isfinite(v)]
    return max(finite) - min(finite) if finite else 0.0


def _costs(results: Results) -> Figure | None:
    if not results.costs:
        return None
    costs = results.costs
    panels = {"seconds": [c.seconds for c in costs], "peak MB": [c.peak_mb for c in costs]}
    run = [c.seconds for c in costs if not c.cached and math.isfinite(c.seconds)]
    cached = sum(c.cached for c in costs)
    seen = f"{len(costs) - cached} steps were run, in {digits(sum(run), 1)} s together; {cached} were cached."
    shape = Bars([c.step for c in costs], panels, [c.cached for c in costs], "run", "cached")
    return Figure("costs", "Time and memory of each step", seen, shape)

"""What is told of tuning: a figure of every setting tried, a table of each way's, and one of each setting."""

from __future__ import annotations

import math
from collections.abc import Sequence

from plait.report._headline import favour
from plait.report._notes import noted, over
from plait.report._results import Results, Setting
from plait.report._settings import (
    Edge,
    by_seed,
    by_way,
    edges,
    ends,
    mean,
    sensitivities,
    untuned,
    without_number,
)
from plait.report._shapes import Dot, Dots, Figure, Series
from plait.report._table import Cell, Number, Table, digits, places_of, spread
from plait.tasks import marked

_NO_NUMBER = (
    "No number: so many settings, all seeds together, failed or have a score that is NaN or infinite. "
    "Nothing bounds how bad such a setting is, so its way has no sensitivity; the table of every setting "
    "says why one failed."
)
_EDGE = "At the edge: the value chosen is the lowest or the highest tried, so a better one may lie outside."
_SENSITIVITY = (
    "Sensitivity: best − worst score over the settings tried in a seed; – if fewer than two were tried, or "
    "one has no number."
)


def tuning_tables(results: Results) -> list[Table]:
    """A row for each way, then one for each setting."""
    return [_ways(results), _settings(results)] if results.trials else []


def _ways(results: Results) -> Table:
    several = len({each.metric for each in results.trials}) > 1
    broken, at = without_number(results.trials), edges(results.trials)
    lines = [
        _line(settings, [metric] * several, bool(broken), [e for e in at if e.way == way] if at else None)
        for (way, metric), settings in by_way(results.trials).items()
    ]
    made = bool(results.semi_synthetic)
    columns = ["way", *["metric"] * several, "tried", *["no number"] * bool(broken), "chosen"]
    columns += ["at the edge"] if at else []
    columns += [marked(name, made) for name in ("chosen's score", "worst", "best")]
    other = "the same that are scored" if results.favoured else f"never on {results.split} examples"
    about = "" if several else f" ({results.trials[0].metric})"
    title = f"Tuning on {results.tuned_on} examples, {other}{about}"
    return Table("tuning", title, [*columns, "sensitivity"], lines, _notes(results, bool(broken), bool(at)))


def _line(settings: Sequence[Setting], metric: list[str], broken: bool, at: list[Edge] | None) -> list[Cell]:
    """A way's row; `at` is where it chose an edge, None if no way did."""
    chosen, lost = [each for each in settings if each.chosen], without_number(settings)
    places, seeds = places_of(each.value for each in settings), by_seed(settings)
    worst, best = zip(*map(ends, seeds), strict=True)
    line: list[Cell] = [settings[0].way, *metric, str(max(map(len, seeds)))]
    line += [f"{len(lost)} of {len(settings)}" if lost else "–"] if broken else []
    line += [_chosen(chosen)]
    line += [", ".join(each.brief for each in at) or "–"] if at is not None else []
    line += [spread((each.value for each in chosen), places) if chosen else "–"]
    failed = "failed" if any(each.failed for each in lost) else "no number"
    line += [failed if lost else spread(worst, places)]
    line += ["–" if any(map(math.isnan, best)) else spread(best, places)]
    found = sensitivities(settings)
    return [*line, spread(found, places) if found else "–"]


def _chosen(chosen: Sequence[Setting]) -> str:
    """Options of the chosen settings: one value where all seeds agree, one for each seed elsewhere."""
    options: dict[str, list[str]] = {}
    for each in chosen:
        for name, value in each.options.items():
            options.setdefault(name, []).append(f"{value:g}" if isinstance(value, float) else str(value))
    agreed = {name: of[:1] if len(set(of)) == 1 else of for name, of in options.items()}
    return ", ".join(f"{name}={'/'.join(of)}" for name, of in agreed.items()) or "–"


def _notes(results: Results, broken: bool, edge: bool) -> list[str]:
    most, others = results.budget, untuned(results)
    notes = [] if most is None else [f"Budget: at most {most} settings for each way and seed."]
    notes += [f"Not tuned, as given: {', '.join(others)}."] if others else []
    notes += ["a/b/c: chosen in each seed."] if len({each.seed for each in results.trials}) > 1 else []
    notes += [_EDGE] if edge else []
    notes += [favour(results)] if results.favoured else []
    notes += [_NO_NUMBER] if broken else []
    return [*notes, _SENSITIVITY, *over(results), *noted(results)]


def _settings(results: Results) -> Table:
    why = any(each.failed for each in results.trials)
    lines = [
        [
            each.way,
            str(each.seed),
            each.told,
            each.metric,
            "failed" if each.failed else Number(each.value, digits=4),
            "chosen" if each.chosen else "–",
            *[each.failed or "–"] * why,
        ]
        for each in results.trials
    ]
    score = marked("score", bool(results.semi_synthetic))
    columns = ["way", "seed", "setting", "metric", score, "choice", *["why it failed"] * why]
    return Table(
        "trials", f"Every setting tried on {results.tuned_on} examples", columns, lines, noted(results)
    )


def tuning_figures(results: Results) -> list[Figure]:
    """A figure for each metric that settings were chosen by."""
    metrics = list(dict.fromkeys(each.metric for each in results.trials))
    return [_figure(results, metric, place) for place, metric in enumerate(metrics)]


def _figure(results: Results, metric: str, place: int) -> Figure:
    settings = [each for each in results.trials if each.metric == metric]
    broken = without_number(settings)
    dots: dict[bool, list[Dot]] = {False: [], True: []}
    for each in settings:
        if each not in broken:
            dots[each.chosen].append(Dot(each.way, each.value, told=f"{each.told} (seed {each.seed})"))
    tried, chosen = (
        Series("tried", "muted", dots[False], "ring"),
        Series("chosen", "merge", dots[True], "diamond"),
    )
    unit = marked(f"{metric}, {results.tuned_on} examples", bool(results.semi_synthetic))
    rows = list(dict.fromkeys(each.way for each in settings))
    name = "tuning" if place == 0 else f"tuning_{place + 1}"
    notes = [*_not_drawn(broken), *_at_edges(settings), *noted(results)]
    title = "Every setting tried, and the one chosen"
    return Figure(name, title, _seen(settings), Dots(rows, [tried, chosen], unit), notes)


def _seen(settings: Sequence[Setting]) -> str:
    """Which way depends most on its setting, by the table's own numbers."""
    ways = {way: own for (way, _), own in by_way(settings).items()}
    known = {way: found for way, own in ways.items() if (found := sensitivities(own))}
    lost = [way for way, own in ways.items() if without_number(own)]
    told = f"Some settings of {', '.join(lost)} have no score. " if lost else ""
    if not known:
        return f"{told}No way's sensitivity is known: it takes two settings or more, all with a score."
    top = max(known, key=lambda way: mean(known[way]))
    seeds = f", mean over {len(known[top])} seeds" if len(known[top]) > 1 else ""
    most = digits(mean(known[top]), places_of(each.value for each in ways[top]))
    scores = f"best − worst score is {most}{seeds}"
    if len(known) == 1:
        return f"{told}How much {top} depends on its setting: {scores}."
    others = "Of the others, " if lost else ""
    return f"{told}{others}{top} depends most on its setting: {scores}."


def _not_drawn(broken: Sequence[Setting]) -> list[str]:
    """Settings that have no place on an axis."""
    told = "; ".join(dict.fromkeys(f"{each.way}: {each.told}" for each in broken))
    return [f"Not drawn, as they failed or have a score that is NaN or infinite: {told}."] if broken else []


def _at_edges(settings: Sequence[Setting]) -> list[str]:
    found = edges(settings)
    if not found:
        return []
    sides = {side: [each.at for each in found if each.side == side] for side in ("lowest", "highest")}
    told = [f"{side} tried: {', '.join(at)}" for side, at in sides.items() if at]
    return [f"At the grid's edge, so a better value may lie outside: {'; '.join(told)}."]

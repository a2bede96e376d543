"""What settings that were tried say: how much a way depends on them, and whether the grid was wide enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plait.report._results import Results, Setting


def by_way(settings: Sequence[Setting]) -> dict[tuple[str, str], list[Setting]]:
    """Settings of each way and metric."""
    found: dict[tuple[str, str], list[Setting]] = {}
    for each in settings:
        found.setdefault((each.way, each.metric), []).append(each)
    return found


def by_seed(settings: Sequence[Setting]) -> list[list[Setting]]:
    """A way's settings in each seed."""
    found: dict[int, list[Setting]] = {}
    for each in settings:
        found.setdefault(each.seed, []).append(each)
    return list(found.values())


def without_number(settings: Sequence[Setting]) -> list[Setting]:
    """Those that failed, or whose score is NaN or infinite."""
    return [each for each in settings if each.failed or not math.isfinite(each.value)]


def ends(settings: Sequence[Setting]) -> tuple[float, float]:
    """Worst and best score in one seed; of those that are numbers, NaN if none is."""
    broken = without_number(settings)
    values = [each.value for each in settings if each not in broken] or [math.nan]
    least, most = min(values), max(values)
    return (least, most) if settings[0].higher_is_better else (most, least)


def sensitivities(settings: Sequence[Setting]) -> list[float]:
    """Best − worst score of a way in each seed, by amount.

    Nothing if a seed has fewer than two settings or one without a number: nothing bounds how bad that one is.
    """
    seeds = by_seed(settings)
    if without_number(settings) or min(map(len, seeds)) < 2:
        return []
    return [abs(best - worst) for worst, best in map(ends, seeds)]


def counts(results: Results) -> dict[str, int]:
    """Way → how many settings it tried, the most of any seed; only ways that tried some."""
    found: dict[str, int] = {}
    for (way, _), settings in by_way(results.trials).items():
        found[way] = max(found.get(way, 0), *map(len, by_seed(settings)))
    return found


def untuned(results: Results) -> list[str]:
    """Ways that had one setting, which was given."""
    tried = counts(results)
    return [m for m in results.models if m not in tried and results.kind(m) not in ("base", "experts")]


def how_tuned(results: Results) -> list[str]:
    """Which ways were tuned, with how many settings, and which were not: a sentence, if any was."""
    tried = counts(results)
    if not tried:
        return []
    same = {count: [way for way in tried if tried[way] == count] for count in dict.fromkeys(tried.values())}
    told = [f"{', '.join(ways)} ({count} setting{'s' * (count > 1)} each)" for count, ways in same.items()]
    most = "" if results.budget is None else f", at most {results.budget} for any way and seed"
    others = untuned(results)
    rest = f" Not tuned, as given: {', '.join(others)}." if others else ""
    return [f"Tuned on {results.tuned_on} examples: {'; '.join(told)}{most}.{rest}"]


@dataclass(frozen=True)
class Edge:
    """A value that was chosen and lies at the edge of those that were tried.

    Args:
        way: that it belongs to.
        option: its name.
        value: the one that was chosen.
        side: `lowest` or `highest` of those tried.
        seeds: in which it was chosen.
        of: in how many seeds the way was tuned.
    """

    way: str
    option: str
    value: float
    side: str
    seeds: tuple[int, ...]
    of: int

    @property
    def brief(self) -> str:
        """`lambda lowest`, and in how many seeds if not in all."""
        return f"{self.option} {self.side}{self._where}"

    @property
    def told(self) -> str:
        """`Iso-C: lambda=0.4, the lowest tried`, and in how many seeds if not in all."""
        return f"{self.way}: {self.option}={self.value:g}, the {self.side} tried{self._where}"

    @property
    def at(self) -> str:
        """`Iso-C lambda=0.4`, and in how many seeds if not in all."""
        return f"{self.way} {self.option}={self.value:g}{self._where}"

    @property
    def _where(self) -> str:
        return "" if len(self.seeds) == self.of else f" ({len(self.seeds)} of {self.of} seeds)"


def edges(settings: Sequence[Setting]) -> list[Edge]:
    """Values chosen that are the lowest or the highest tried of an option with numbers to choose from."""
    found: list[Edge] = []
    for (way, _), own in by_way(settings).items():
        seeds = by_seed(own)
        at: dict[tuple[str, float, str], list[int]] = {}
        for each in seeds:
            for place in _at_edge(each):
                at.setdefault(place, []).append(each[0].seed)
        found += [Edge(way, *place, tuple(where), len(seeds)) for place, where in at.items()]
    return found


def _at_edge(settings: Sequence[Setting]) -> list[tuple[str, float, str]]:
    """Option, value and side of what was chosen in one seed, where it is at an edge."""
    chosen = next((each for each in settings if each.chosen), None)
    found: list[tuple[str, float, str]] = []
    for name, value in chosen.options.items() if chosen is not None else ():
        values = [each.options.get(name) for each in settings]
        numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) < len(values) or len(set(numbers)) < 2:
            continue  # words have no edges, and of one value there is no choice
        for side, end in (("lowest", min(numbers)), ("highest", max(numbers))):
            if float(value) == end:
                found.append((name, float(value), side))
    return found


def mean(values: Sequence[float]) -> float:
    """Of all seeds."""
    return float(np.mean(values))

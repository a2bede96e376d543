"""The outcome in one sentence, and what is to be held against it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from plait.report._results import SINGLE, Results
from plait.report._settings import edges
from plait.report._shares import averages, firsts, paired_tests
from plait.report._table import digits
from plait.tasks import NOTE, Average, marked, notes


def best(results: Results) -> str | None:
    """The model with the largest mean share of the experts' scores, of those that compete; None without."""
    pooled = averages(results)
    ways = [m for m in results.models if results.competes(m) and math.isfinite(pooled[m].value)]
    return max(ways, key=lambda model: pooled[model].value, default=None)


def headline(results: Results) -> str:
    """What came out."""
    top = best(results)
    pooled = averages(results)
    if top is None:
        return _without_best(results, pooled)
    parts = [f"{top} keeps {_share(results, pooled[top])} of the experts’ {_what(results)}"]
    parts += [_against(results, top), *_bases(results, pooled)]
    bounds = [model for model in results.models if results.kind(model) == "joint"]
    parts += [f"the yardstick, {_joint(m)}, keeps {_share(results, pooled[m])}" for m in bounds]
    return "; ".join(part for part in parts if part) + "."


def _without_best(results: Results, pooled: Mapping[str, Average]) -> str:
    """What came out where nothing competes: none is called the best, since each is something else."""
    if any(results.competes(model) for model in results.models):
        return "No way of merging has a score that is a number."
    others = [model for model in results.models if results.kind(model) not in ("base", "experts")]
    told = [f"{m} ({results.kind(m)}) keeps {_share(results, pooled[m])}" for m in others]
    if not told:
        return f"No {SINGLE} is here."
    told[0] += f" of the experts’ {_what(results)}"
    return f"No {SINGLE} is here; {'; '.join([*told, *_bases(results, pooled)])}."


def _bases(results: Results, pooled: Mapping[str, Average]) -> list[str]:
    """What is kept without any expert: a way that keeps less has lost by them."""
    of = {model: pooled[model] for model in results.models if results.kind(model) == "base"}
    names = {model: "the base alone" if model == "base" else f"the base alone ({model})" for model in of}
    return [
        f"{names[m]} keeps {_share(results, each)}" for m, each in of.items() if math.isfinite(each.value)
    ]


def _joint(model: str) -> str:
    return "joint training on all tasks" if model == "joint" else f"joint training ({model})"


def _share(results: Results, each: Average) -> str:
    value = marked(f"{digits(100 * each.value, 1)} %", bool(results.semi_synthetic))
    if math.isnan(each.low):
        return value
    return f"{value} [{digits(100 * each.low, 1)}, {digits(100 * each.high, 1)}]"


def _what(results: Results) -> str:
    metrics = {row.metric for row in firsts(results.scores[0])}
    over = f"mean of {_counted(len(results.tasks), 'task')}, {_counted(len(results.seeds), 'seed')}"
    behind = "; in brackets 95 % intervals" if results.scores[0].evidence else ""
    return f"{metrics.pop() if len(metrics) == 1 else 'scores'} ({over}{behind})"


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _against(results: Results, top: str) -> str:
    """Whether the best way beats the reference."""
    reference = results.reference
    if reference is None:
        return ""
    if top == reference:
        return f"no other {SINGLE} has a higher mean"
    test = next((each for each in paired_tests(results) if each.model == top), None)
    if test is None:
        return ""
    points = digits(abs(100 * test.value), 1)
    seeds = f"in {test.seeds} of {_counted(len(results.seeds), 'seed')}"
    if math.isnan(test.p):
        way = "more" if test.value >= 0 else "less"
        return f"{points} points {way} than {reference} ({seeds}; without examples there is no test)"
    between = f"[{digits(100 * test.low, 1)}, {digits(100 * test.high, 1)}]"
    p = "p < 0.001" if test.corrected < 0.001 else f"p = {digits(test.corrected, 3)}"
    if test.corrected >= 0.05:
        return f"that it beats {reference} is not shown: {digits(100 * test.value, 1)} points {between}, {p}"
    if test.value < 0:
        return f"it is {points} points {between} behind {reference} ({p})"
    return f"it beats {reference} by {points} points {between}, {seeds} ({p})"


def favour(results: Results) -> str:
    """That settings were chosen by what is scored."""
    return (
        f"Settings were chosen on the {results.tuned_on} examples that are scored, so the scores of tuned "
        "ways are favoured over those of all others."
    )


def caveats(results: Results) -> list[str]:
    """What a reader must know before they believe it."""
    found = []
    count = sum(results.competes(model) for model in results.models)
    if count > 1:
        found.append(
            f"The best {SINGLE}, of {count}, is named by the same {results.split} scores that it is told "
            "with, so its figure is slightly too good; p is corrected for all that were tested."
        )
    if results.split != "test":
        found.append(f"All scores are of {results.split} examples, none of test examples.")
    if results.favoured:
        found.append(favour(results))
    ways = dict.fromkeys(edge.way for edge in edges(results.trials))
    if ways:
        why = "Tuned to a value at the edge of those tried, so a better one may lie outside"
        found.append(f"{why}: {', '.join(ways)}.")
    if results.reached and results.split == "validation":
        found.append("Ways with targets ended by the validation scores that are told here.")
    if len(results.seeds) == 1:
        found.append("One seed: how much training varies is not known.")
    if results.semi_synthetic:
        made = len(results.semi_synthetic)
        found.append(f"{NOTE} ({made} of {_counted(len(results.tasks), 'task')}).")
    for seed, scores in zip(results.seeds, results.scores, strict=True):
        about = f"seed {seed}: " if len(results.seeds) > 1 else ""
        said = [note for note in notes(scores) if note != NOTE and not note.startswith("missing:")]
        found += [f"{about}{note}" for note in said]
    return [*found, *results.notes]

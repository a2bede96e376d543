"""Scores for people to read."""

from __future__ import annotations

import math

from plait.tasks._reasons import reasons
from plait.tasks._scores import NOTE, Average, Score, Scores


def markdown(scores: Scores) -> str:
    """A table with a line for each task and a column for each model, and notes below it."""
    models = scores.models
    table = [["task", "metric", *models], ["---", "---", *(["---:"] * len(models))]]
    found = {row.key: row for row in scores}
    firsts: dict[tuple[str, ...], Score] = {}
    for row in scores:
        firsts.setdefault(row.key[1:], row)
    for first in firsts.values():
        cells = [_cell(found.get((model, first.task, first.metric))) for model in models]
        table.append([first.label, first.metric, *cells])
    averages = [each for each in scores.averages() if each.tasks > 1]
    for metric in dict.fromkeys(each.metric for each in averages):
        of = {each.model: each for each in averages if each.metric == metric}
        table.append(["**average**", metric, *(_cell(of.get(model)) for model in models)])
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in table]
    return "\n".join(lines) + "".join(f"\n\n{note}" for note in notes(scores))


def notes(scores: Scores) -> list[str]:
    """What is to be known about a table of scores: marks, missing tasks, outputs that are no numbers."""
    found = [NOTE] if any(row.semi_synthetic for row in scores) else []
    found += [f"missing: {reason}" for reason in reasons(scores.missing)]
    if scores.untrained:
        told = ", ".join(f"`{task}`" for task in scores.untrained)
        found.append(f"untrained heads, all zeros, so that scores say nothing: {told}; give their heads")
    found += [
        f"`{row.model}` gave NaN for {row.nan} of {row.n} examples of `{row.task}`"
        for row in scores
        if row.nan
    ]
    return found


def _cell(row: Score | Average | None) -> str:
    if row is None:
        return "–"
    text = f"{row.value:.4g}"
    return text if math.isnan(row.low) else f"{text} [{row.low:.4g}, {row.high:.4g}]"

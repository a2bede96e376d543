"""What the demo found, as tables, a picture and a few sentences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

#: Colours that readers with colour blindness can tell apart.
COLOURS = ("#9aa0a6", "#202124", "#0072b2", "#e69f00", "#009e73", "#cc79a7")


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        name: of the model.
        kind: `base`, `tuned` or `merged`.
        scores: task → share of the unseen texts that it gets right.
        distances: other model → Euclidean distance of all weights.
    """

    name: str
    kind: str
    scores: dict[str, float]
    distances: dict[str, float]

    @property
    def mean(self) -> float:
        return sum(self.scores.values()) / len(self.scores)


def error(score: float, count: int) -> float:
    """Half the width of a 95 % interval for a share of `count` texts."""
    return 1.96 * math.sqrt(score * (1 - score) / count)


def own(rows: list[Row], task: str) -> float:
    """What the fine-tune for a task scores on it."""
    return next(row.scores[task] for row in rows if row.name == f"tuned for {task}")


def show(rows: list[Row], chance: dict[str, float], count: int, console: Console) -> None:
    """Both tables and what they say."""
    tasks = list(chance)
    scores = Table(title=f"accuracy on {count} unseen texts a task, in %", title_justify="left")
    scores.add_column("model", no_wrap=True)
    for task in [*tasks, "mean"]:
        scores.add_column(task, justify="right")
    for row in rows:
        cells = [_percent(row.scores[t], bold=row.name == f"tuned for {t}") for t in tasks]
        last = row is rows[0] or row.name == f"tuned for {tasks[-1]}"
        scores.add_row(row.name, *cells, _percent(row.mean), end_section=last)
    guess = [*chance.values(), sum(chance.values()) / len(chance)]
    scores.add_section()
    scores.add_row("guessing", *map(_percent, guess), style="dim")
    console.print(scores)
    others = list(rows[-1].distances)
    apart = Table(title="Euclidean distance of all weights", title_justify="left")
    apart.add_column("model", no_wrap=True)
    for name in others:
        apart.add_column(f"to {name}", justify="right")
    for row in rows:
        apart.add_row(row.name, *(f"{row.distances[name]:.2f}" for name in others))
    console.print(apart)
    console.print(verdict(rows, tasks, count))


def _percent(value: float, *, bold: bool = False) -> str:
    return f"[b]{100 * value:.1f}[/b]" if bold else f"{100 * value:.1f}"


def verdict(rows: list[Row], tasks: list[str], count: int) -> str:
    """What was gained and lost, in words; computed, whatever it is."""
    base, merged = rows[0], [row for row in rows if row.kind == "merged"]
    three = sum(own(rows, task) for task in tasks) / len(tasks)
    best, worst = max(merged, key=lambda row: row.mean), min(merged, key=lambda row: row.mean)
    single = max((row for row in rows if row.kind == "tuned"), key=lambda row: row.mean)
    within = 100 * error(three, count * len(tasks))
    return (
        f"Three fine-tunes, each on its own task, score {100 * three:.1f} on average; the base scores "
        f"{100 * base.mean:.1f}, and the best fine-tune alone, on all three, {100 * single.mean:.1f}.\n"
        f"One merged model does all three at {100 * worst.mean:.1f} ({worst.name}) to {100 * best.mean:.1f} "
        f"({best.name}): {_change(worst.mean - three)} to {_change(best.mean - three)} against the three.\n"
        f"Averages are known to about ±{within:.0f} points here, so this does not rank the methods. "
        "Each ran with its defaults; nothing was tuned."
    )


def _change(difference: float) -> str:
    return f"{100 * difference:+.1f} points"


def picture(rows: list[Row], chance: dict[str, float], count: int, path: Path) -> None:
    """Bars by task: the base, the fine-tune for the task, and every merge, with 95 % intervals."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    tasks, merged = list(chance), [row for row in rows if row.kind == "merged"]
    groups = {
        task: [rows[0].scores[task], own(rows, task), *(r.scores[task] for r in merged)] for task in tasks
    }
    groups["mean of the three"] = [sum(v) / len(v) for v in zip(*groups.values(), strict=True)]
    labels = ["base", "fine-tuned for the task (three models)", *(f"merged: {row.name}" for row in merged)]
    counts = [count] * len(tasks) + [count * len(tasks)]
    guesses = [*chance.values(), sum(chance.values()) / len(chance)]
    width = 0.8 / len(labels)
    figure, axes = plt.subplots(figsize=(11, 5.6), layout="constrained")
    for i, (label, colour) in enumerate(zip(labels, COLOURS, strict=True)):
        places = [g + (i - (len(labels) - 1) / 2) * width for g in range(len(groups))]
        heights = [100 * values[i] for values in groups.values()]
        spans = [100 * error(values[i], n) for values, n in zip(groups.values(), counts, strict=True)]
        axes.bar(places, heights, 0.9 * width, label=label, color=colour)
        axes.errorbar(places, heights, spans, fmt="none", ecolor="#5f6368", elinewidth=0.9, capsize=2)
        for x, height, span in zip(places, heights, spans, strict=True):
            axes.text(x, height + span + 0.8, f"{height:.0f}", ha="center", va="bottom", fontsize=8.5)
    for group, guess in enumerate(guesses):
        label = "guessing" if group == 0 else None
        axes.hlines(
            100 * guess, group - 0.44, group + 0.44, colors="#d93025", linestyles="dotted", label=label
        )
    axes.set_xticks(range(len(groups)), list(groups), fontsize=11)
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, 105)
    axes.set_ylabel(f"right of {count} unseen texts a task (%)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("One model for three tasks: three fine-tunes of all-MiniLM-L6-v2, merged in four ways")
    figure.legend(
        *axes.get_legend_handles_labels(), frameon=False, ncols=4, loc="outside lower center", fontsize=9
    )
    axes.set_title(
        "whiskers: 95 % intervals from the number of test texts; one seed", fontsize=9, color="#5f6368"
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)

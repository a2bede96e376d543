"""Steps that measure: what every example adds to the metric, and what a model says of a few."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import nn

from plait.study._at import At, made
from plait.study._models import said
from plait.study._study import Study
from plait.study._tuning import answers
from plait.study._whole import write_json
from plait.study.ways import Way
from plait.tasks import CrossEntropy, Measured, Task, measure

NUMBERS, SAID = "numbers.npz", "said.json"


def shown(study: Study, task: Task) -> list[int]:
    """The examples that a report shows: evenly spread."""
    if not study.pictures or not isinstance(task.loss, CrossEntropy):
        return []
    return np.unique(np.linspace(0, len(task.split(study.split)) - 1, study.pictures).astype(int)).tolist()


def experts(at: At, folder: Path) -> None:
    """Each expert on its own task."""
    _measured(at, folder, lambda task: at.on_task(at.body(at.experts[task.name]), task))


def base(at: At, folder: Path) -> None:
    """The base on all tasks, with each expert's head."""
    _measured(at, folder, at.one(at.base, at.experts))


def way(one: Way, at: At, folder: Path) -> None:
    """A way on all tasks."""
    _measured(at, folder, answers(one, at, at.folders.get(made(at.name, at.seed))))


def _measured(at: At, folder: Path, network: Callable[[Task], nn.Module]) -> None:
    numbers, words = {}, {}
    for task in at.suite.tasks:
        model = network(task).eval()
        added, broken = measure(model, task, at.study.split)
        numbers[task.name], numbers[f"{task.name} nan"] = added, np.array(broken)
        rows = shown(at.study, task)
        words[task.name] = said(model, task, rows, at.study.split) if rows else []
    np.savez(folder / NUMBERS, **numbers)  # pyright: ignore[reportArgumentType]
    write_json(words, folder / SAID, indent=None)


def read(study: Study, model: str, folder: Path) -> Measured:
    """What a step of this file left, under a model's name."""
    with np.load(folder / NUMBERS) as found:
        return {
            (model, task.name): (found[task.name], int(found[f"{task.name} nan"]))
            for task in study.suite.tasks
        }


def read_said(folder: Path) -> dict[str, list[int]]:
    """What was said of the examples that are shown: task → classes."""
    return json.loads((folder / SAID).read_text(encoding="utf-8"))

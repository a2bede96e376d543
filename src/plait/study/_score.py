"""Steps that measure: what every test example adds to the metric, and what a model says of a few."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from torch import nn

from plait.study._models import Ensemble, body, experts, on_task, said
from plait.study._study import Study
from plait.tasks import CrossEntropy, Measured, Task, measure

NUMBERS, SAID = "numbers.npz", "said.json"


def shown(study: Study, task: Task) -> list[int]:
    """The test examples that a report shows: evenly spread."""
    if not study.pictures or "test" not in task.splits or not isinstance(task.loss, CrossEntropy):
        return []
    return np.unique(np.linspace(0, len(task.split("test")) - 1, study.pictures).astype(int)).tolist()


def alone(study: Study, seed: int, folder: Path, needs: Mapping[str, Path]) -> None:
    """Each expert on its own task."""
    heads = experts(needs, seed)
    _measured(study, folder, lambda task: on_task(body(study.suite, heads[task.name]), task, heads))


def one(study: Study, model: str, seed: int, folder: Path, needs: Mapping[str, Path]) -> None:
    """One body on all tasks, with each expert's head; a model that was trained on all, with its own."""
    network, heads = body(study.suite, needs[model] / "model"), experts(needs, seed)
    own = {task.name: needs[model] / "model" for task in study.suite.tasks}
    brings = any((needs[model] / "model").glob("*/head.safetensors"))
    _measured(study, folder, lambda task: on_task(network, task, own if brings else heads))


def together(study: Study, seed: int, folder: Path, needs: Mapping[str, Path]) -> None:
    """All experts asked at once."""
    heads = experts(needs, seed)
    bodies = [body(study.suite, path) for path in heads.values()]
    _measured(study, folder, lambda task: Ensemble(bodies, task, heads))


def _measured(study: Study, folder: Path, network: Callable[[Task], nn.Module]) -> None:
    numbers, words = {}, {}
    for task in study.suite.tasks:
        model = network(task).eval()
        added, broken = measure(model, task, study.split)
        numbers[task.name], numbers[f"{task.name} nan"] = added, np.array(broken)
        rows = shown(study, task)
        words[task.name] = said(model, task, rows) if rows else []
    np.savez(folder / NUMBERS, **numbers)  # pyright: ignore[reportArgumentType]
    (folder / SAID).write_text(json.dumps(words) + "\n", encoding="utf-8")


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

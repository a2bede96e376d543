"""Model Zoo: a growing ensemble of networks, each trained on a few tasks, hard ones more often."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field
from torch import nn

from plait.errors import InputError
from plait.study._models import Averaged, batches
from plait.study._training import (
    METRICS,
    fit_one,
    later_seed,
    problems_of_mixture,
)
from plait.study._whole import write_json, write_text
from plait.study.ways._trained import Trained
from plait.tasks import Suite, Task, at_rest

if TYPE_CHECKING:
    from plait.study._at import At

#: Tasks of each network, in the order of training.
_LEARNED = "learned.json"


class Zoo(Trained):
    """`zoo: b`: tasks arrive one by one, in the suite's order; each time a network learns the newest and up
    to b − 1 earlier ones, drawn by how badly the ensemble does on their training examples. A task is answered
    by the mean of the probabilities of all networks that learned it. Ramesh & Chaudhari, arXiv:2106.03027.
    """

    kind: ClassVar[str] = "ensemble"
    of_experts: ClassVar[bool] = False

    zoo: int = Field(ge=1, strict=True)

    @property
    def method(self) -> str:
        return "arXiv:2106.03027"

    def problems_of_suite(self, suite: Suite, where: str) -> list[InputError]:
        return problems_of_mixture(suite.tasks, None, where) if self.zoo > 1 else []

    def make(self, at: At, folder: Path) -> None:
        learned = _read(folder)
        settings = self.joined(at.study.experts)
        for number in range(len(learned), len(at.suite.tasks)):
            known, newest = at.suite.tasks[:number], at.suite.tasks[number]
            losses = {task.name: _loss(_ensemble(at, folder, learned, task), task) for task in known}
            chosen = [newest.name, *drawn(losses, self.zoo - 1, seed=[at.seed, number])]
            place = folder / f"member-{number}"
            shutil.rmtree(place / "model", ignore_errors=True)
            fit_one(at, chosen, settings, place, seed=later_seed(at.seed, number))
            learned.append(chosen)
            write_json(learned, folder / _LEARNED, indent=None)
        records = [
            json.loads(line) | {"member": f"member {number + 1}"}
            for number in range(len(learned))
            for line in (folder / f"member-{number}" / METRICS).read_text("utf-8").splitlines()
        ]
        write_text("".join(f"{json.dumps(record)}\n" for record in records), folder / METRICS)

    def answers(self, at: At, folder: Path | None) -> Callable[[Task], nn.Module]:
        assert folder is not None
        learned = _read(folder)
        return lambda task: _ensemble(at, folder, learned, task)


def drawn(losses: Mapping[str, float], count: int, *, seed: list[int]) -> list[str]:
    """Earlier tasks for the next network, without replacement.

    Args:
        losses: task → the ensemble's mean loss on its training examples.
        count: how many are wanted; all, if there are no more.
        seed: of the draw.

    Returns:
        Names; each drawn with a weight of exp((ℓ − mean ℓ) / mean ℓ), kept within 10⁻⁴ and 10³.
    """
    names, count = list(losses), min(count, len(losses))
    if count < 1:
        return []
    values = np.array([losses[name] for name in names])
    mean = values.mean()
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        weights = np.exp((values - mean) / mean)
    weights = np.clip(np.nan_to_num(weights, nan=1.0, posinf=math.inf), 1e-4, 1e3)
    picked = np.random.default_rng(seed).choice(len(names), count, replace=False, p=weights / weights.sum())
    return [names[place] for place in picked]


def _read(folder: Path) -> list[list[str]]:
    """What each network of an ensemble learned, as far as it has come."""
    file = folder / _LEARNED
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []


def _ensemble(at: At, folder: Path, learned: list[list[str]], task: Task) -> nn.Module:
    """The networks that learned a task."""
    places = [folder / f"member-{n}" / "model" for n, tasks in enumerate(learned) if task.name in tasks]
    members = [at.on_task(at.body(place), task, {task.name: place}) for place in places]
    return Averaged(members, task).eval()


def _loss(network: nn.Module, task: Task) -> float:
    """A network's mean loss on a task's training examples."""
    values, weights = 0.0, 0.0
    with at_rest(network):
        for batch in batches(task.split("train")):
            value, weight = task.loss(task.outputs(network, batch), batch)
            values, weights = values + float(value.sum()), weights + float(weight.sum())
    return values / weights

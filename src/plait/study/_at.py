"""Where a step stands: its study and seed, and what the steps before it left."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from plait.checkpoint import HEAD_FILE, load_into, open_model
from plait.errors import InputError
from plait.study._whole import as_number
from plait.tasks import Headed, Suite, Task, measure, with_head

if TYPE_CHECKING:
    from plait.study._study import Study

BASE, SIMILARITY = "base", "similarity"
#: Task → folder of its expert, in the folder of the step that trained them.
INDEX = "models.json"
#: Task → its expert's score, in the folder of the step that measured them for tuning.
BOUNDS = "bounds.json"


def trained(seed: int) -> str:
    """The step that trains experts."""
    return f"experts @{seed}"


def branched(task: str, seed: int) -> str:
    """The step that trains an expert after others."""
    return f"expert {task} @{seed}"


def bounded(seed: int) -> str:
    """The step that measures experts on the split that settings are chosen by."""
    return f"score experts for tuning @{seed}"


def made(way: str, seed: int) -> str:
    """The step that makes a way's model."""
    return f"{way} @{seed}"


def scored(model: str, seed: int) -> str:
    """The step that measures a model."""
    return f"score {model} @{seed}"


def read_index(folder: Path) -> dict[str, Path]:
    """A member's name → its folder, in the folder of the step that trained it.

    Raises:
        InputError: what is noted there is missing or damaged.
    """
    try:
        found = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return {name: folder / own for name, own in found.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        hint = "remove this folder, and the step is done anew"
        what = f"it is no finished step: {INDEX}, which says where its models are, can't be read"
        raise InputError(what, where=str(folder), hint=hint) from error


@dataclass(frozen=True)
class At:
    """Where a step stands.

    Args:
        study: it belongs to.
        seed: of what it draws.
        name: of the way that it makes or measures, or of the step.
        folders: of the steps that it needs, by their names.
    """

    study: Study
    seed: int
    name: str
    folders: Mapping[str, Path]

    @property
    def suite(self) -> Suite:
        """Whose tasks are learned."""
        return self.study.suite

    @property
    def base(self) -> Path:
        """The base's checkpoint."""
        return self.folders[BASE] / "model"

    @cached_property
    def experts(self) -> dict[str, Path]:
        """Task → its expert's folder: a checkpoint, and `head.safetensors` if the task has a head.

        They are those that the step needs, in the suite's order.
        """
        found = dict[str, Path]()
        for name in (trained(self.seed), *(branched(task, self.seed) for task in self.study.branch)):
            if name in self.folders:
                found |= read_index(self.folders[name])
        return {task.name: found[task.name] for task in self.suite.tasks if task.name in found}

    @cached_property
    def bounds(self) -> dict[str, float]:
        """Task → its own expert's score on the split that settings are chosen by."""
        told = json.loads((self.folders[bounded(self.seed)] / BOUNDS).read_text(encoding="utf-8"))
        return {task: as_number(value) for task, value in told.items()}

    def body(self, folder: Path) -> nn.Module:
        """The suite's network with a folder's weights."""
        return load_into(self.suite.base(), open_model(str(folder))).eval()

    def filled(self, state: Mapping[str, Tensor]) -> nn.Module:
        """The suite's network with a merge's weights."""
        return load_into(self.suite.base(), open_model(dict(state))).eval()

    def on_task(self, network: nn.Module, task: Task, heads: Mapping[str, Path] | None = None) -> nn.Module:
        """A body with a task's head: that of the task's expert, or of other folders."""
        own = (heads or self.experts)[task.name] if task.head is not None else None
        return with_head(network, task, own, own=False, where="the model")

    def with_head_of(self, task: Task, folder: Path) -> Task:
        """The task, with the head that a folder holds to start from."""
        if task.head is None:
            return task
        headed = with_head(nn.Identity(), task, folder, own=False, where="the model")
        assert isinstance(headed, Headed)
        return task.with_head(headed.head)

    def one(self, folder: Path, heads: Mapping[str, Path] | None = None) -> Callable[[Task], nn.Module]:
        """One body for all tasks.

        Args:
            folder: its checkpoint.
            heads: task → folder of its head. If None, those in the folder if it has any, else the experts'.
        """
        network = self.body(folder)
        if heads is None and any(folder.glob(f"*/{HEAD_FILE}")):
            heads = {task.name: folder for task in self.suite.tasks}
        return lambda task: self.on_task(network, task, heads)

    def measured(self, network: nn.Module, task: Task, split: str) -> float:
        """The metric of a network (with the task's head) on a split."""
        added, _ = measure(network, task, split)
        return float(task.metric.summary(added.sum(0)))

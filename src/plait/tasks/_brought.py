"""Heads that the models to score bring, and whose: a merged body is asked with those of its experts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from plait.checkpoint import HEAD_FILE, Checkpoint
from plait.errors import InputError
from plait.tasks._joint import Heads
from plait.tasks._saved import head_folders
from plait.tasks._suite import Suite
from plait.tasks._task import Headed, Task


class Brought:
    """Which head a model meets a task with.

    In this order: one that is given for the task; the model's own, if it is the task's (in its folder, if it
    is a checkpoint); that of the model called like the task; that of the only model which brings one of the
    task; the task's.

    Args:
        models: by name.
        suite: whose tasks.
        given: task → head, as a user gives them.
    """

    def __init__(self, models: Mapping[str, Any], suite: Suite, given: Mapping[str, Any]) -> None:
        self.models, self.given = models, given
        known = {task.name for task in suite.tasks} | {*suite.missing, *suite.left_out}
        #: Model → the task whose head it brings.
        self.task_of: dict[str, str] = {}
        for name, model in models.items():
            if (isinstance(model, Headed) and not isinstance(model.head, Heads)) or _beside(model):
                own = model.task if isinstance(model, Headed) else _saved_task(model)
                whose = next((each for each in (own, name) if each in known), None)
                if whose is not None:
                    self.task_of[name] = whose

    def own(self, name: str, task: Task, *, alone: bool) -> bool:
        """Whether a model meets the task with the head that it brings."""
        model = self.models[name]
        if task.name in self.given or not isinstance(model, Headed):
            return False
        if isinstance(model.head, Heads) and task.name in model.head.names:
            return True
        return self.task_of.get(name, task.name if alone else None) == task.name

    def head(self, name: str, task: Task, *, alone: bool) -> Any:
        """What a model meets the task with; None for its own head, or for that which the task brings.

        Raises:
            InputError: several models bring one.
        """
        if task.name in self.given or task.head is None or self.own(name, task, alone=alone):
            return self.given.get(task.name)
        if (mine := self._saved(name, task, alone=alone)) is not None:
            return mine
        bring = [each for each, whose in self.task_of.items() if whose == task.name]
        if len(bring) > 1 and task.name not in bring:
            told = " and ".join(f"`{each}`" for each in bring[:2]) + (", …" if len(bring) > 2 else "")
            hint = f"say which with heads={{{task.name!r}: …}}, or call that model `{task.name}`"
            raise InputError(f"{told} bring a head of task `{task.name}`", where=f"model `{name}`", hint=hint)
        chosen = self.models[task.name if task.name in bring else bring[0]] if bring else None
        return chosen.head if isinstance(chosen, Headed) else _beside(chosen)

    def _saved(self, name: str, task: Task, *, alone: bool) -> Path | None:
        """The task's head in the folder of a checkpoint."""
        model = self.models[name]
        folder = _folder(model)
        if folder is None:
            return None
        several = [place / HEAD_FILE for place in head_folders(folder, task.name)]
        mine = self.task_of.get(name, task.name if alone else None) == task.name
        return next((file for file in several if file.is_file()), _beside(model) if mine else None)


def _folder(model: Any) -> Path | None:
    """Where a checkpoint's heads are: beside its adapter, if it has one."""
    place = (model.adapter or model.folder) if isinstance(model, Checkpoint) else None
    return None if place is None else Path(place)


def _beside(model: Any) -> Path | None:
    """The file of the one head that lies beside a checkpoint, if there is one."""
    folder = _folder(model)
    file = None if folder is None else folder / HEAD_FILE
    return file if file is not None and file.is_file() else None


def _saved_task(model: Any) -> str | None:
    """The task that a fleet's member was saved as having learned."""
    folder = _folder(model)
    try:
        assert folder is not None
        found = json.loads((folder / "member.json").read_text(encoding="utf-8"))["task"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


def is_fleet(models: Any) -> bool:
    """Whether it has members by name, as a fleet does."""
    named = hasattr(models, "members") and hasattr(models, "__getitem__") and hasattr(models, "__iter__")
    return named and not isinstance(models, nn.Module | Mapping)

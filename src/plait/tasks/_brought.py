"""Heads that the models to score bring, and whose: a merged body is asked with those of its experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from plait.errors import InputError
from plait.tasks._joint import Heads
from plait.tasks._suite import Suite
from plait.tasks._task import Headed, Task


class Brought:
    """Which head a model meets a task with.

    In this order: one that is given for the task; the model's own, if it is the task's; that of the model
    called like the task; that of the only model which brings one of the task; the task's.

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
            if isinstance(model, Headed) and not isinstance(model.head, Heads):
                whose = next((each for each in (model.task, name) if each in known), None)
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
        bring = [each for each, whose in self.task_of.items() if whose == task.name]
        if len(bring) > 1 and task.name not in bring:
            told = " and ".join(f"`{each}`" for each in bring[:2]) + (", …" if len(bring) > 2 else "")
            hint = f"say which with heads={{{task.name!r}: …}}, or call that model `{task.name}`"
            raise InputError(f"{told} bring a head of task `{task.name}`", where=f"model `{name}`", hint=hint)
        chosen = self.models[task.name if task.name in bring else bring[0]] if bring else None
        return chosen.head if isinstance(chosen, Headed) else None


def is_fleet(models: Any) -> bool:
    """Whether it has members by name, as a fleet does."""
    named = hasattr(models, "members") and hasattr(models, "__getitem__") and hasattr(models, "__iter__")
    return named and not isinstance(models, nn.Module | Mapping)

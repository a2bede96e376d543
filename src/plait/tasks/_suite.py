"""A suite: tasks that share an input format and a base."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from plait.errors import InputError, nearest
from plait.tasks._reasons import reasons
from plait.tasks._task import Task


@dataclass(frozen=True)
class Suite:
    """Tasks that models of one kind are trained and measured on.

    Args:
        name: of the suite.
        tasks: at least one, each of its own name.
        base: makes the network that every task starts from, with the base's weights.
        missing: task → why it is not there (data that could not be had); told beside every score.
        about: what it is, and where its data come from.
        experts: task → where a published expert of it lies (a hub id), for those that have one.
        left_out: tasks that were not asked for, and so not made.
        decode: what tokens say as text; None if inputs are no tokens, or nobody knows.
    """

    name: str
    tasks: tuple[Task, ...]
    base: Callable[[], nn.Module]
    missing: Mapping[str, str] = field(default_factory=dict)
    about: str = ""
    experts: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    decode: Callable[[Sequence[int]], str] | None = None

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise InputError(f"two tasks are called `{twice[0]}`", where=f"suite `{self.name}`")
        if not names:
            hint = "; ".join(map(str, reasons(self.missing))) or None
            raise InputError("there is no task", where=f"suite `{self.name}`", hint=hint)

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[str]:
        """Names of the tasks, as a dict's keys."""
        return (task.name for task in self.tasks)

    def __contains__(self, name: object) -> bool:
        return any(task.name == name for task in self.tasks)

    def __getitem__(self, name: str) -> Task:
        found = next((task for task in self.tasks if task.name == name), None)
        where = f"suite `{self.name}`"
        if found is None:
            if name in self.missing:
                raise InputError(f"task `{name}` is missing: {self.missing[name]}", where=where)
            if name in self.left_out:
                hint = "name it in load_suite's `tasks`, too"
                raise InputError(f"task `{name}` was left out", where=where, hint=hint)
            hint = nearest(str(name), list(self))
            raise InputError(f"there is no task `{name}`", where=where, hint=hint)
        return found

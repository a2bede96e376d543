"""What a fleet is told before anything is built: settings, names, losses and metrics that can't be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from plait.errors import InputError, nearest, raise_all
from plait.fleet._groups import BACKENDS
from plait.fleet._member import After, Member
from plait.tasks import Metric, Suite, Task

#: More threads than any machine has use for; PyTorch can't count to the largest numbers.
_THREADS = 4096


def check_settings(
    *,
    backend: object,
    save_every: object,
    log_every: object,
    threads: object,
    out: Any,
    model: Any,
    writers: Any,
) -> None:
    """Nothing if a fleet's own settings make sense.

    Raises:
        InputError: there is no such backend, a number is none, the folder is a file or can't be one, the
            model makes none, or a writer doesn't write.
    """
    if backend not in BACKENDS:
        raise InputError(f"there is no backend `{backend}`", hint=nearest(str(backend), BACKENDS))
    numbers = [("save_every", save_every, 0), ("log_every", log_every, 1)]
    numbers += [] if threads is None else [("threads", threads, 1)]
    for name, value, least in numbers:
        most = _THREADS if name == "threads" else math.inf
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            until = f" to {most}" if name == "threads" else " on"
            raise InputError(f"`{name}` is {value!r}", hint=f"give a whole number from {least}{until}")
    if model is not None and not isinstance(model, nn.Module) and not callable(model):
        hint = "give a module or a function that makes one; a checkpoint for it is a member's start="
        raise InputError(f"`model` is {model!r}", hint=hint)
    if not isinstance(writers, Iterable):
        raise InputError(f"`writers` is a {type(writers).__name__}", hint="give a list of them")
    for writer in writers:
        if isinstance(writer, type):
            hint = f"give one that is made: {writer.__name__}(…)"
            raise InputError(f"the writer {writer.__name__} is a class", hint=hint)
        if not hasattr(writer, "write") or not hasattr(writer, "close"):
            raise InputError(f"{writer!r} is no writer", hint="it needs write(record) and close()")
    if out is not None and not isinstance(out, str | Path):
        raise InputError(f"`out` is {out!r}", hint="give a folder")
    try:
        is_file = out is not None and Path(out).exists() and not Path(out).is_dir()
    except OSError as error:  # a name that no folder can have
        raise InputError(f"it can't be a folder: {error.strerror}", where=str(out)) from error
    if is_file:
        raise InputError("the fleet's folder is a file", where=str(out), hint="give a folder")


def check_measures(loss: Any, metric: Any, where: str | None = None) -> None:
    """Nothing if loss and metric are what plait's are, or None.

    Raises:
        InputError: they are PyTorch's, classes, or functions that make one.
    """
    is_loss = not isinstance(loss, type) and callable(loss) and hasattr(loss, "pads_classes")
    if loss is not None and not is_loss:
        told = f"the class {loss.__name__}" if isinstance(loss, type) else f"a {type(loss).__name__}"
        hint = (
            "give plait.tasks.CrossEntropy(), SquaredError() or NextToken(), or one that is called like these"
        )
        raise InputError(f"`loss` is {told}, no loss of plait", where=where, hint=hint)
    if metric is not None and not isinstance(metric, Metric):
        told = getattr(metric, "__name__", None) or repr(metric)
        hint = "give plait.tasks.accuracy(), macro_f1(), mean_squared_error() or another plait.tasks.Metric"
        raise InputError(f"`metric` is {told}, no metric of plait", where=where, hint=hint)


def named_tasks(tasks: Suite | Sequence[Task] | Mapping[str, Task] | Task | None) -> dict[str, Task]:
    """Tasks by name.

    Raises:
        InputError: one is no task, or two have one name.
    """
    given: list[Any] = []
    if isinstance(tasks, Mapping):
        found = dict(tasks)
    else:
        several = tasks.tasks if isinstance(tasks, Suite) else tasks
        several = [] if several is None else several
        given = list(several) if isinstance(several, Iterable) else [several]
        found = {getattr(task, "name", ""): task for task in given}
    for task in [*found.values(), *given]:
        if not isinstance(task, Task):
            raise InputError(f"{task!r} is no task", hint="tasks= takes a suite, plait.Tasks, or name → Task")
    names = [task.name for task in given]
    raise_all(
        [
            InputError(f"two tasks are called `{name}`", hint="give tasks= names of their own: name → Task")
            for name in found
            if names.count(name) > 1
        ]
    )
    return found


def listed(members: Any) -> list[Member]:
    """A fleet's members; one alone is a list of one.

    Raises:
        InputError: they are no list.
    """
    if isinstance(members, Member):
        return [members]
    if not isinstance(members, Iterable) or isinstance(members, str | type):
        raise InputError(f"`members` is {members!r}", hint="give a list of plait.Member(name=…, …)")
    return list(members)


def check_names(members: Sequence[Member], known: Sequence[str] = ()) -> None:
    """Nothing if every member has a name of its own.

    Raises:
        InputError: two have one name, one starts after a member that is not there, or is no member.
    """
    for member in members:
        if not isinstance(member, Member):
            raise InputError(f"a {type(member).__name__} is no member", hint="give plait.Member(name=…, …)")
    names = [member.name for member in members]
    problems = [
        InputError(f"two members are called `{name}`", hint="names are what members are found by")
        for name in dict.fromkeys(names)
        if names.count(name) + (name in known) > 1
    ]
    for member in members:
        if not member.name:
            problems.append(InputError("a member has no name", hint="names are what members are found by"))
        if isinstance(member.start, After) and member.start.member not in [*names, *known]:
            hint = nearest(member.start.member, [*names, *known])
            problems.append(
                InputError(
                    f"it starts after `{member.start.member}`", where=f"member `{member.name}`", hint=hint
                )
            )
    problems += _circles(members)
    raise_all(problems)


def _circles(members: Sequence[Member]) -> list[InputError]:
    after = {m.name: m.start.member for m in members if isinstance(m.start, After)}
    for name in after:
        place, seen = name, {name}
        while place in after:
            place = after[place]
            if place in seen:
                return [InputError(f"member `{name}` waits for itself", hint="let one of the circle start")]
            seen.add(place)
    return []

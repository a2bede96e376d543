"""The tasks of a suite whose data can be had, and why the others are missing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypedDict

from plait.errors import InputError, nearest
from plait.tasks._find import Unavailable
from plait.tasks._task import Task


class Gathered(TypedDict):
    """What `Suite` takes under these names."""

    tasks: tuple[Task, ...]
    missing: dict[str, str]
    left_out: tuple[str, ...]


def gather(suite: str, makers: Mapping[str, Callable[[], Task]], asked: Sequence[str] | None) -> Gathered:
    """Make the tasks of a suite.

    Args:
        suite: its name, for messages.
        makers: task → what makes it.
        asked: which of them; all that can be had if None.

    Returns:
        the tasks that there are, in the order of the makers; task → why it is missing; those not asked for.

    Raises:
        Unavailable: a task that was asked for can't be had.
        InputError: there is no task of a name; or anything but files that can't be had (a wrong digest).
    """
    where = f"suite `{suite}`"
    check_asked(asked)
    for name in asked or ():
        if name not in makers:
            raise InputError(f"there is no task `{name}`", where=where, hint=nearest(name, makers))
    tasks, missing = [], {}
    for name, make in makers.items():
        if asked is not None and name not in asked:
            continue
        try:
            tasks.append(make())
        except Unavailable as error:
            why = f"{error.what} ({error.hint})" if error.hint else error.what
            if asked is not None:
                raise Unavailable(f"task `{name}` is missing: {why}", where=where) from error
            missing[name] = why
    left_out = tuple(name for name in makers if asked is not None and name not in asked)
    return {"tasks": tuple(tasks), "missing": missing, "left_out": left_out}


def check_asked(asked: Sequence[str] | None) -> None:
    """Nothing if some names of tasks were given, or none for all.

    Raises:
        InputError: they are none, no names, or one text, which is a sequence of letters.
    """
    if asked is None:
        return
    several = isinstance(asked, Collection) and not isinstance(asked, str) and len(asked) > 0
    if not several or not all(isinstance(name, str) for name in asked):
        raise InputError(f"`tasks` is {asked!r}", hint="give a list of names, or leave it out for all tasks")

"""The tasks of a suite whose data can be had, and why the others are missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from plait.tasks._find import Unavailable
from plait.tasks._task import Task


def gather(makers: Mapping[str, Callable[[], Task]]) -> tuple[tuple[Task, ...], dict[str, str]]:
    """Make the tasks of a suite.

    Args:
        makers: task → what makes it.

    Returns:
        the tasks that there are, in the order given; and task → why it is missing.

    Raises:
        InputError: anything but files that can't be had (a wrong digest, for one).
    """
    tasks, missing = [], {}
    for name, make in makers.items():
        found = _made(make)
        if isinstance(found, Task):
            tasks.append(found)
        else:
            missing[name] = f"{found.what} ({found.hint})" if found.hint else found.what
    return tuple(tasks), missing


def _made(make: Callable[[], Task]) -> Task | Unavailable:
    try:
        return make()
    except Unavailable as error:
        return error

"""Why tasks are missing, each reason said once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

#: Names that are written out.
_NAMED = 8
_QUOTED = re.compile(r"`([^`]+)`")


class Reason(NamedTuple):
    """What tasks are missing for.

    Args:
        tasks: their names.
        why: in words; of data sets that can't be had for one reason, all are named in it.
    """

    tasks: list[str]
    why: str

    def __str__(self) -> str:
        return f"{listed(self.tasks)}: {self.why}"


def reasons(missing: Mapping[str, str]) -> list[Reason]:
    """Tasks by their reasons, which differ in no more than what the first quoted name is.

    Args:
        missing: task → why, as a suite says.
    """
    alike: dict[str, dict[str, tuple[str, str]]] = {}
    for task, why in missing.items():
        found = _QUOTED.search(why)
        name = found[1] if found else ""
        alike.setdefault(_without(name, why), {})[task] = name, why
    return [Reason(list(group), _together(rest, group)) for rest, group in alike.items()]


def listed(names: Sequence[str]) -> str:
    """Names in quotes, the first of many."""
    more = len(names) - _NAMED
    return ", ".join(f"`{name}`" for name in names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _without(name: str, why: str) -> str:
    """A reason without a name, which is quoted or ends a path."""
    return re.sub(rf"(?<=[`'\"/]){re.escape(name)}(?!\w)", "…", why) if name else why


def _together(rest: str, group: Mapping[str, tuple[str, str]]) -> str:
    names = list(dict.fromkeys(name for name, _ in group.values()))
    if len(names) == 1:
        return next(why for _, why in group.values())
    return rest.replace("`…`", listed(names), 1)

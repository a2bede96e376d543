"""Suites that ship with plait: a file each, with a function `load(data)`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from plait.errors import InputError, nearest
from plait.tasks._suite import Suite

_MODULES = ("bytes", "glyphs", "smollm2", "text")


def suite_names() -> list[str]:
    """The names of the suites that ship with plait."""
    return sorted(_MODULES)


def load_suite(name: str, data: str | Path | None = None) -> Suite:
    """A suite that ships with plait.

    Args:
        name: one of `suite_names()`.
        data: a folder that its files are looked for in first; `PLAIT_DATA` if None. After it come plait's
            cache, installed packages, and downloads. What can't be had is told by the suite's `missing`.

    Raises:
        InputError: there is no such suite, a file's digest is wrong, or no task can be had at all.
    """
    if name not in _MODULES:
        raise InputError(f"there is no suite `{name}`", hint=nearest(name, suite_names()))
    return import_module(f"plait.tasks.suites.{name}").load(data)

"""Suites that ship with plait: a file each, with a function `load(data)`."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from plait.errors import InputError, nearest
from plait.recipe import read_yaml
from plait.tasks._suite import Suite
from plait.tasks._suite_file import load_suite_file

_MODULES = ("bytes", "glyphs", "scripts", "smollm2", "text")


def suite_names() -> list[str]:
    """The names of the suites that ship with plait."""
    files = (path.name.removesuffix(".yaml") for path in Path(__file__).parent.glob("*.yaml"))
    return sorted([*_MODULES, *files])


def suite_summaries() -> dict[str, str]:
    """What each of them is, in a sentence."""
    return {name: _summary(name) for name in suite_names()}


def _summary(name: str) -> str:
    folder = Path(__file__).parent
    if name in _MODULES:
        text = ast.get_docstring(ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))) or ""
        return text.partition("\n")[0].partition(": ")[2]
    return str(read_yaml(folder / f"{name}.yaml")[0].data["about"]) + " (not run by plait's authors)"


def load_suite(
    name: str | Path, data: str | Path | None = None, *, tasks: Sequence[str] | None = None
) -> Suite:
    """A suite that ships with plait, or one out of a YAML file.

    Args:
        name: one of `suite_names()`, or the path of a file that ends in `.yaml` or `.yml`.
        data: a folder that a shipped suite's files are looked for in first; `PLAIT_DATA` if None. After it
            come plait's cache, installed packages, and downloads. What can't be had is told by the suite's
            `missing`.
        tasks: which tasks are made, if not all.

    Raises:
        InputError: there is no such suite or task, a file's digest is wrong, or a task that was asked for,
            or every task, can't be had.
    """
    name = str(name)
    if name.endswith((".yaml", ".yml")):
        if data is not None:
            hint = "leave out `data`: the paths that a file names start from its folder"
            raise InputError("a suite's file says itself where its data lie", where=name, hint=hint)
        return load_suite_file(name, tasks)
    if name in _MODULES:
        return import_module(f"plait.tasks.suites.{name}").load(data, tasks)
    if name not in suite_names():
        beside = next((f"{name}{end}" for end in (".yaml", ".yml") if Path(f"{name}{end}").is_file()), None)
        hint = f"did you mean `{beside}`?" if beside else nearest(name, suite_names())
        hint = "a suite's file ends in .yaml" if Path(name).is_file() else hint
        raise InputError(f"there is no suite `{name}`", hint=hint)
    return load_suite_file(Path(__file__).parent / f"{name}.yaml", tasks)

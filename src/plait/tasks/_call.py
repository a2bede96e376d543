"""Functions that YAML files name, looked for in the file's folder first and then among what is installed."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from plait.errors import InputError, nearest

_NAME = r"[^\W\d]\w*"
_CALL = re.compile(rf"{_NAME}(\.{_NAME})*:{_NAME}")
#: Modules that Python or this one can't do without, whatever a folder has of their names.
_STAYING = {"__main__", "importlib", "plait", *sys.builtin_module_names}


def find_function(call: str, folder: Path, where: str | None = None) -> Callable[..., Any]:
    """The function that `package.module:function` names.

    Args:
        call: what is named.
        folder: where its module, and those that this one imports, are looked for first.
        where: for messages.

    Raises:
        InputError: there is no such module or function, or a module of one name was imported from elsewhere
            before. What the module raises is raised as it is.
    """
    if _CALL.fullmatch(call) is None:
        what = f"`call` names `{call}`, which is no `package.module:function`"
        raise InputError(what, where=where, hint="a module's name, a colon, and the name of a function in it")
    name, _, function = call.partition(":")
    with looked_for_in(folder, where):
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in _parents(name):
                raise
            what = f"`call` names `{call}`, and there is no module `{error.name}`"
            hint = f"it is looked for in {folder.resolve()}, then among installed packages"
            raise InputError(what, where=where, hint=hint) from error
    found = getattr(module, function, None)
    if not callable(found):
        what = f"`call` names `{call}`, and {_place(module)} has no function `{function}`"
        known = [each for each, held in vars(module).items() if callable(held) and not each.startswith("_")]
        raise InputError(what, where=where, hint=nearest(function, known))
    return found


@contextmanager
def looked_for_in(folder: Path, where: str | None = None) -> Iterator[None]:
    """Modules that are imported meanwhile are looked for in a folder first.

    Python knows one module of a name. Those of a name that is the folder's too, but that came from elsewhere,
    are set aside meanwhile; if they turn out to be needed from the folder, nothing of it stays.

    Raises:
        InputError: they were needed.
    """
    importlib.invalidate_caches()
    place = str(folder.resolve())
    aside, before = _taken(place), set(sys.modules)
    for name in aside:
        del sys.modules[name]
    sys.path.insert(0, place)
    try:
        yield
    finally:
        if place in sys.path:
            sys.path.remove(place)
        twice = [name for name in aside if name in sys.modules]
        if twice:
            for name in set(sys.modules) - before | set(twice):
                if _is_below(sys.modules[name], place):
                    del sys.modules[name]
        sys.modules.update(aside)
        if twice:
            what = f"module `{twice[0]}` is in {place}, and another one of that name was imported from"
            hint = "rename one of them: Python knows one module of a name at a time"
            raise InputError(f"{what} {_place(aside[twice[0]])}", where=where, hint=hint)


def _parents(name: str) -> list[str]:
    """A module's name and those of the packages that it is in."""
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _taken(place: str) -> Mapping[str, ModuleType]:
    """Modules that came from elsewhere, and whose name a folder has as well; with what is in them."""
    found = {}
    for name in {name.partition(".")[0] for name in list(sys.modules)} - _STAYING:
        spec = PathFinder.find_spec(name, [place])
        if spec is not None and spec.origin is not None and not _is_of(name, spec):
            found |= {own: held for own, held in list(sys.modules.items()) if own.partition(".")[0] == name}
    return found


def _is_of(name: str, spec: ModuleSpec) -> bool:
    """Whether a module that was imported is that of a file."""
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is not None and Path(file).resolve() == Path(str(spec.origin)).resolve()


def _is_below(module: ModuleType | None, place: str) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve().is_relative_to(place)


def _place(module: ModuleType) -> str:
    return str(getattr(module, "__file__", None) or f"`{module.__name__}`")

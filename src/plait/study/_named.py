"""What a function's code names, and where that is found."""

from __future__ import annotations

import dis
import functools
import sys
from collections.abc import Iterator, Mapping
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

#: Packages whose code is told by what their classes and functions are called.
_KNOWN = {*sys.stdlib_module_names, "numpy", "torch", "transformers", "peft", "plait"}


def known(value: Any) -> bool:
    """Whether a class, function or module is of a known package."""
    name = getattr(value, "__module__", None) or getattr(value, "__name__", "")
    return str(name).partition(".")[0] in _KNOWN


def named(function: FunctionType, label: str) -> Iterator[tuple[str, Any]]:
    """Name → value of what a function's code names, of what its closure holds, and of its defaults.

    Args:
        function: whose code it is.
        label: what the function is called.
    """
    names = set(_names(function.__code__)) - set(_written(function.__code__))
    yield from _among(names, function.__globals__, function.__module__)
    seen: set[int] = set()
    waiting = [function.__globals__[name] for name in sorted(names & function.__globals__.keys())]
    while waiting:
        value = waiting.pop()
        if isinstance(value, ModuleType) and not known(value) and id(value) not in seen:
            seen.add(id(value))
            inside = list(_among(names, vars(value), value.__name__))
            yield from inside
            waiting += [held for _, held in inside]
    closed = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    filled = {name: cell.cell_contents for name, cell in closed.items() if _filled(cell)}
    yield from _among(set(filled), filled, label)
    yield from ((f"{label}: default {n}", value) for n, value in enumerate(function.__defaults__ or ()))
    defaults = (function.__kwdefaults__ or {}).items()
    yield from ((f"{label}: default {name}", value) for name, value in defaults)


def functions_of(held: Any) -> list[FunctionType]:
    """The functions that an entry of a class consists of: itself, or what a decorator made something of."""
    if isinstance(held, functools.partialmethod):
        return []  # its arguments count too
    accessors = (held.fget, held.fset) if isinstance(held, property) else (held,)
    return [own for own in map(unwrapped, accessors) if isinstance(own, FunctionType)]


def unwrapped(value: Any) -> Any:
    """What a decorator made something of, as far as it tells."""
    if not isinstance(value, type | FunctionType) and known(type(value)):
        for name in ("__wrapped__", "__func__", "func"):
            if hasattr(type(value), name) or name in getattr(value, "__dict__", {}):
                return getattr(value, name)
    return value


def _filled(cell: CellType) -> bool:
    """Whether a closure's name was given a value yet."""
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _among(names: set[str], held: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    for name in sorted(names & held.keys()):
        if not name.startswith("__"):
            yield f"{where}.{name}", held[name]


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _written(code: CodeType) -> Iterator[str]:
    """Globals that the code sets: what they hold is no part of it."""
    yield from (str(each.argval) for each in dis.get_instructions(code) if each.opname == "STORE_GLOBAL")

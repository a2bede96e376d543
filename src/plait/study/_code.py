"""The code that a network or a function computes with: its own, and what that names."""

from __future__ import annotations

import dis
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

from plait.fleet._identity import identity

#: Packages whose code is told by what their classes and functions are called.
_KNOWN = {*sys.stdlib_module_names, "numpy", "torch", "transformers", "peft", "plait"}
_PLAIN = bool | int | float | complex | str | bytes | tuple | None


def code_of(parts: Iterable[Any]) -> dict[str, str]:
    """Name → code of classes and functions, and of all that their code names, at any remove.

    Functions, classes and plain constants are looked for among globals, in modules and in what closures hold,
    under the names that stand in the code. What is of a package that is known is left out.
    """
    found: dict[str, str] = {}
    waiting: list[Any] = list(parts)
    while waiting:
        part = _unwrapped(waiting.pop())
        if not isinstance(part, type | FunctionType) or _known(part):
            continue
        name = f"{part.__module__}.{part.__qualname__}"
        if name in found:
            continue
        found[name] = _source(part)
        waiting += part.__bases__ if isinstance(part, type) else ()
        for function in _functions(part):
            for place, value in _named(function):
                if isinstance(value, _PLAIN):
                    found[place] = identity(value)
                else:
                    waiting.append(value)
    return found


def _functions(part: type | FunctionType) -> Iterator[FunctionType]:
    """The function, or those of a class."""
    held: Iterable[Any] = [part] if isinstance(part, FunctionType) else vars(part).values()
    for each in held:
        accessors = (each.fget, each.fset) if isinstance(each, property) else (each,)
        yield from (own for own in map(_unwrapped, accessors) if isinstance(own, FunctionType))


def _unwrapped(value: Any) -> Any:
    """What a decorator made something of, as far as it tells."""
    for name in ("__wrapped__", "__func__", "func"):
        if not isinstance(value, type | FunctionType) and hasattr(value, name):
            return getattr(value, name)
    return value


def _named(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function's code names, and by what names it is found."""
    names = set(_names(function.__code__)) - set(_written(function.__code__))
    yield from _among(names, function.__globals__, function.__module__)
    for value in [function.__globals__[name] for name in names & function.__globals__.keys()]:
        if isinstance(value, ModuleType) and not _known(value):
            yield from _among(names, vars(value), value.__name__)
    closed = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    filled = {name: cell.cell_contents for name, cell in closed.items() if _filled(cell)}
    yield from _among(set(filled), filled, f"{function.__module__}.{function.__qualname__}")


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


def _known(value: Any) -> bool:
    """Whether a class, function or module is of a known package."""
    name = getattr(value, "__module__", None) or getattr(value, "__name__", "")
    return str(name).partition(".")[0] in _KNOWN


def _source(part: type | FunctionType) -> str:
    """Code as it was written or, where that is not known, as it was compiled."""
    try:
        return inspect.getsource(part)
    except (OSError, TypeError):
        if isinstance(part, FunctionType):
            return identity(part.__code__)
        return ", ".join(f"{name}: {identity(own)}" for name, own in vars(part).items() if callable(own))

"""What a function's code names, and where that is found."""

from __future__ import annotations

import dis
import functools
import sys
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

#: Packages whose code is told by what their classes and functions are called.
_KNOWN = {*sys.stdlib_module_names, "numpy", "torch", "transformers", "peft", "plait"}
#: Where `torch.compile` and `torch.compiler.disable` keep what they made something of.
COMPILED = "_torchdynamo_orig_callable"
#: What `functools.singledispatch` makes besides the registry, which is an attribute of its result: caches.
_DISPATCH, _DISPATCH_CACHE = "singledispatch.<locals>.", "_clear_cache"
#: In closures of known packages, instances of other classes of theirs are caches, contexts and the like.
_TOLD_IN_CLOSURES = (
    *(bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Tensor, np.ndarray),
    *(type, FunctionType, MethodType, BuiltinFunctionType, functools.partial, nn.Module),
    *(list, tuple, dict, set, frozenset),
)


def known(value: Any) -> bool:
    """Whether a class, function or module is of a known package."""
    name = getattr(value, "__module__", None) or getattr(value, "__name__", "")
    return str(name).partition(".")[0] in _KNOWN


def named(function: FunctionType, label: str) -> Iterator[tuple[str, Any]]:
    """Name → value of what a function's code names, and of what the function holds.

    Args:
        function: whose code it is; of a known package's, what it was made around is told alone.
        label: what the function is called.
    """
    if made_of(function) is not None:
        yield f"{label}: made of", made_of(function)
    elif known(function):
        yield from _among(around(function), label)
    else:
        yield from _named_by_code(function)
        yield from _among(_closed(function), label)
        defaults = dict(enumerate(function.__defaults__ or ())) | (function.__kwdefaults__ or {})
        yield from ((f"{label}: default {name}", value) for name, value in defaults.items())
        yield from _attributes(function, label)


def made_of(value: Any) -> Any:
    """What PyTorch compiles or refuses to compile, if a function or module is the result of that.

    The result itself holds the working directory, numbers of this process and settings of the machine.
    """
    made = vars(value).get(COMPILED)
    # A decorator may copy a function's attributes, but not its globals.
    own = value.__globals__.get("__name__") if isinstance(value, FunctionType) else type(value).__module__
    return made if str(own).startswith("torch.") else None


def around(function: FunctionType) -> dict[str, Any]:
    """What a function of a known package was made around: what its closure holds of a user's."""
    if function.__qualname__.startswith(_DISPATCH):
        return {}
    told = _closed(function).items()
    return {n: v for n, v in told if isinstance(v, _TOLD_IN_CLOSURES) or not known(type(v))}


def _named_by_code(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Among globals, and in the modules there."""
    names = set(_names(function.__code__)) - set(_written(function.__code__))
    found = {name: function.__globals__[name] for name in sorted(names & function.__globals__.keys())}
    yield from _among(found, function.__module__)
    seen: set[int] = set()
    waiting = list(found.values())
    while waiting:
        value = waiting.pop()
        if isinstance(value, ModuleType) and not known(value) and id(value) not in seen:
            seen.add(id(value))
            inside = {name: vars(value)[name] for name in names & vars(value).keys()}
            yield from _among(inside, value.__name__)
            waiting += [inside[name] for name in sorted(inside) if not name.startswith("__")]


def _closed(function: FunctionType) -> dict[str, Any]:
    """What a closure holds, of what was given a value yet."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells if _filled(cell)}


def _attributes(function: FunctionType, label: str) -> Iterator[tuple[str, Any]]:
    """What was hung on a function, without what a decorator copied from the one it wraps."""
    own = vars(function)
    wrapped = own.get("__wrapped__")
    if wrapped is not None:
        yield f"{label}: wrapped", wrapped
    copied = getattr(wrapped, "__dict__", {})
    held = {n: v for n, v in own.items() if n != _DISPATCH_CACHE and (n not in copied or copied[n] is not v)}
    yield from _among(held, label)


def functions_of(held: Any) -> list[FunctionType]:
    """The functions that an entry of a class consists of: itself, or what a decorator made something of."""
    if isinstance(held, functools.partialmethod | functools.singledispatchmethod):
        return []  # its arguments, or its other functions, count too
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


def _among(held: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    yield from ((f"{where}.{name}", held[name]) for name in sorted(held) if not name.startswith("__"))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _written(code: CodeType) -> Iterator[str]:
    """Globals that the code sets: what they hold is no part of it."""
    yield from (str(each.argval) for each in dis.get_instructions(code) if each.opname == "STORE_GLOBAL")

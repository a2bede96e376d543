"""The code that a network or a function computes with: its own, and all that is reached from it."""

from __future__ import annotations

import functools
import inspect
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from enum import EnumMeta
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor

from plait.fleet._identity import identity
from plait.study._held import PICKLED, held_by
from plait.study._named import around, functions_of, known, made_of, named, unwrapped

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
_PARTIAL = (functools.partial, functools.partialmethod)
#: That of `numpy.random`'s functions, which scipy's distributions hold: another one in each process.
_NUMPYS = np.random.mtrand._rand  # pyright: ignore[reportAttributeAccessIssue]
#: Where Python keeps what flags make together, once it has come up; members are in a table of their own.
_FLAGS = "_value2member_map_"
#: Of so many characters, a label or a value is told by its digest.
_LONG = 300
#: What instances are pickled by is followed so many times, one within another, as it may be new each time.
_DEPTH = 500


def code_of(parts: Iterable[Any], within: tuple[int, ...] = ()) -> dict[str, str]:
    """Name → code or value, of classes, functions and what they hold, and of all that is reached from there.

    From a function: what stands under the names in its code, among globals, in modules and in what closures
    hold, its defaults, and its attributes. From a class: its bases, its metaclass, its functions, its
    attributes. From an instance: its class, attributes, slots, and what it would be pickled by. Plain values,
    tensors and arrays are told as they are; of a package that is known, no more than names, and what its
    functions are made around.

    Args:
        parts: where to begin.
        within: ids of sets that are being looked at.
    """
    found: dict[str, str] = {}
    labels: dict[int, str] = {}
    kept: list[Any] = []  # so that no two of them have one address
    waiting = deque(
        ("" if isinstance(part, type | FunctionType) else f"part {number}", part, 0)
        for number, part in enumerate(parts)
    )
    while waiting:
        place, value, depth = waiting.popleft()
        told = _told(value, within)
        label = labels.get(id(value), told)
        if label is None:
            label = labels[id(value)] = _label(value, place, found)
            kept.append(value)
            if isinstance(value, type | FunctionType):
                found[label] = _source(value)
            if depth < _DEPTH:
                inside = _inside(value, label, within)
                waiting += ((to, held, depth + (PICKLED in to.removeprefix(label))) for to, held in inside)
        if place and label != place:
            found[_short(place)] = label
    return found


def _short(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[:40]}… {blake3(text.encode()).hexdigest()}"


def _told(value: Any, within: tuple[int, ...]) -> str | None:
    """What is said of a value that nothing is reached from; None for all others."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)} {_bytes_of(value)}"
    if type(value) is np.ndarray or isinstance(value, np.generic):
        plain = not value.dtype.hasobject and not value.dtype.fields  # between fields there may be anything
        return f"{value.dtype} {value.shape} {blake3(value.tobytes()).hexdigest()}" if plain else None
    if type(value) in _PLAIN or isinstance(value, torch.dtype | torch.device):
        return _short(identity(value))
    if type(value) in (list, tuple) and all(type(each) in _PLAIN for each in value):
        return _short(identity(value))
    if isinstance(value, type | FunctionType):
        return _name(value) if known(value) and not _made_around(value) else None
    if isinstance(value, BuiltinFunctionType):
        return None if _bound(value) else _name(value)
    if isinstance(value, ModuleType):
        return value.__name__
    if value is _NUMPYS:
        return "NumPy's own generator"
    return "…" if id(value) in within else None


def _made_around(value: type | FunctionType) -> bool:
    """Whether a known package's function may hold what is a user's."""
    return isinstance(value, FunctionType) and (made_of(value) is not None or bool(around(value)))


def _bound(function: BuiltinFunctionType) -> bool:
    """Whether it is a method of an instance."""
    return not isinstance(function.__self__, type | ModuleType | None)


def _bytes_of(tensor: Tensor) -> str:
    if tensor.is_meta or not tensor.numel():
        return ""
    dense = tensor.detach() if tensor.layout == torch.strided else tensor.detach().to_dense()
    flat = dense.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return blake3(flat.view(torch.uint8).numpy().tobytes()).hexdigest()


def _label(value: Any, place: str, found: Mapping[str, str]) -> str:
    """What a part is called: functions and classes by their names, others by where they were met first."""
    name = _name(value) if isinstance(value, type | FunctionType) else _short(place)
    number, label = 1, name
    while label in found:
        number, label = number + 1, f"{name} {number + 1}"
    return label


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _inside(value: Any, label: str, within: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    """What is reached from a part at one remove, and under what name."""
    if isinstance(value, type):
        yield from ((f"{label}: base {n}", base) for n, base in enumerate(value.__bases__))
        if type(value) is not type:
            yield f"{label}: metaclass", type(value)
        for name, held in vars(value).items():
            functions = functions_of(held)
            yield from ((f"{label}.{name}", function) for function in functions)
            cache = name == _FLAGS and isinstance(value, EnumMeta)
            if not functions and not name.startswith("__") and not cache:
                yield f"{label}.{name}", held
    elif isinstance(value, FunctionType):
        yield from named(value, label)
    elif isinstance(value, _PARTIAL):
        yield from [(f"{label}.func", value.func), (f"{label}.args", value.args)]
        yield f"{label}.keywords", value.keywords
    elif isinstance(value, MethodType):
        yield from [(f"{label}.self", value.__self__), (f"{label}.function", value.__func__)]
    elif isinstance(value, BuiltinFunctionType):
        yield from [(f"{label}.self", value.__self__), (f"{label}.name", value.__qualname__)]
    elif type(value) in (list, tuple):
        yield from ((f"{label}[{n}]", held) for n, held in enumerate(value))
    else:
        if unwrapped(value) is not value:
            yield f"{label}: wrapped", unwrapped(value)
        yield from _inside_instance(value, label, within)


def _inside_instance(value: Any, label: str, within: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    yield f"{label}: class", type(value)
    if isinstance(value, Mapping):
        for number, (key, held) in enumerate(value.items()):
            yield from [(f"{label}: key {number}", key), (f"{label}[{number}]", held)]
    elif isinstance(value, AbstractSet):
        inside = (*within, id(value))
        yield f"{label}: elements", sorted(_told_whole(each, inside) for each in value)
    yield from ((f"{label}.{name}", held) for name, held in held_by(value))


def _told_whole(value: Any, within: tuple[int, ...]) -> str:
    """An element of a set, which no place tells from the others: with all that is reached from it."""
    told = _told(value, within)
    return told if told is not None else identity(sorted(code_of([value], within).items()))


def _source(part: type | FunctionType) -> str:
    """Code as it was written or, where that is not known, as it was compiled."""
    if known(part) or (isinstance(part, FunctionType) and made_of(part) is not None):
        return _name(part)
    try:
        return inspect.getsource(part if isinstance(part, type) else part.__code__)
    except (OSError, TypeError):
        if isinstance(part, FunctionType):
            return identity(part.__code__)
        return ", ".join(f"{name}: {identity(own)}" for name, own in vars(part).items() if callable(own))

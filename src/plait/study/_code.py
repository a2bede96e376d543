"""The code that a network or a function computes with: its own, and all that is reached from it."""

from __future__ import annotations

import functools
import inspect
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor, nn

from plait.fleet._identity import identity
from plait.study._named import functions_of, known, named, unwrapped

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)

_PARTIAL = (functools.partial, functools.partialmethod)
_HOLDERS = (list, tuple, Mapping, AbstractSet, MethodType, nn.Module, *_PARTIAL)


def code_of(parts: Iterable[Any]) -> dict[str, str]:
    """Name → code or value, of classes, functions and what they hold, and of all that is reached from there.

    From a function: what stands under the names in its code, among globals, in modules and in what closures
    hold, and its defaults. From a class: its bases, its functions, its attributes. From lists, tuples, sets,
    mappings, partial functions and instances of classes: what they hold. Plain values and tensors are told as
    they are; of a package that is known, no more than names.
    """
    found: dict[str, str] = {}
    labels: dict[int, str] = {}
    kept: list[Any] = []  # so that no two of them have one address
    waiting = deque(
        ("" if isinstance(part, type | FunctionType) else f"part {number}", part)
        for number, part in enumerate(parts)
    )
    while waiting:
        place, value = waiting.popleft()
        told = _told(value)
        label = labels.get(id(value), told)
        if label is None:
            label = labels[id(value)] = _label(value, place, found)
            kept.append(value)
            if isinstance(value, type | FunctionType):
                found[label] = _source(value)
            waiting += _inside(value, label)
        if place and label != place:
            found[place] = label
    return found


def _told(value: Any) -> str | None:
    """What is said of a value that nothing is reached from; None for all others."""
    if isinstance(value, _PLAIN):
        return identity(value)
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)} {_bytes_of(value)}"
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return f"{value.dtype} {value.shape} {blake3(value.tobytes()).hexdigest()}"
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        return _name(value) if known(value) or isinstance(value, BuiltinFunctionType) else None
    if isinstance(value, ModuleType):
        return value.__name__
    holds = isinstance(value, _HOLDERS)
    if holds or unwrapped(value) is not value or not known(type(value)):
        return None
    return f"an instance of {_name(type(value))}"


def _bytes_of(tensor: Tensor) -> str:
    if tensor.is_meta or not tensor.numel():
        return ""
    dense = tensor.detach() if tensor.layout == torch.strided else tensor.detach().to_dense()
    flat = dense.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return blake3(flat.view(torch.uint8).numpy().tobytes()).hexdigest()


def _label(value: Any, place: str, found: Mapping[str, str]) -> str:
    """What a part is called: functions and classes by their names, others by where they were met first."""
    name = _name(value) if isinstance(value, type | FunctionType) else place
    number, label = 1, name
    while label in found:
        number, label = number + 1, f"{name} {number + 1}"
    return label


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _inside(value: Any, label: str) -> Iterator[tuple[str, Any]]:
    """What is reached from a part at one remove, and under what name."""
    if isinstance(value, type):
        yield from (("", base) for base in value.__bases__)
        for name, held in vars(value).items():
            functions = functions_of(held)
            yield from ((f"{label}.{name}", function) for function in functions)
            if not functions and not name.startswith("__"):
                yield f"{label}.{name}", held
    elif isinstance(value, FunctionType):
        yield from named(value, label)
    elif isinstance(value, _PARTIAL):
        yield from [(f"{label}.func", value.func), (f"{label}.args", value.args)]
        yield f"{label}.keywords", value.keywords
    elif isinstance(value, MethodType):
        yield from [(f"{label}.self", value.__self__), (f"{label}.function", value.__func__)]
    elif isinstance(value, Mapping):
        yield from ((f"{label}[{identity(key)}]", held) for key, held in value.items())
    elif isinstance(value, AbstractSet):
        yield from ((f"{label}[{n}]", held) for n, held in enumerate(sorted(value, key=identity)))
    elif isinstance(value, list | tuple):
        yield from ((f"{label}[{n}]", held) for n, held in enumerate(value))
    elif unwrapped(value) is not value:
        yield f"{label}: wrapped", unwrapped(value)
    else:
        yield f"{label}: class", type(value)
        yield from ((f"{label}.{name}", held) for name, held in _attributes(value))


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """What an instance holds; a module's hooks without their numbers, which go up with every hook."""
    for name, held in sorted(getattr(value, "__dict__", {}).items()):
        hooks = isinstance(value, nn.Module) and "hooks" in name and isinstance(held, Mapping)
        yield name, list(held.values()) if hooks else held


def _source(part: type | FunctionType) -> str:
    """Code as it was written or, where that is not known, as it was compiled."""
    try:
        return inspect.getsource(part if isinstance(part, type) else part.__code__)
    except (OSError, TypeError):
        if isinstance(part, FunctionType):
            return identity(part.__code__)
        return ", ".join(f"{name}: {identity(own)}" for name, own in vars(part).items() if callable(own))

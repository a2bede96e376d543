"""What an object is, as a text that is the same in every process: for saves that must know their fleet."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plait.fleet._slots import slots_of

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
#: Of a parameter: as many values, evenly spread, as tell one training from another.
_MOST = 1 << 16


def identity(value: Any, seen: tuple[int, ...] = ()) -> str:
    """Equal for objects of one class that hold the same, whatever their addresses.

    Args:
        value: what is told: numbers, tensors, functions (their code and what they enclose), objects
            (their attributes and slots).
        seen: what it is part of, as an object may hold itself.
    """
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, type | BuiltinFunctionType | ModuleType):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}"
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)} {digest_of({'': value})}"
    if id(value) in seen:
        return "…"
    held = _held(value)
    if held is None:
        return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    return f"{name}({identity_of_items(held, (*seen, id(value)))})"


def identity_of_items(items: Sequence[Any], seen: tuple[int, ...]) -> str:
    """The identities of several objects."""
    return ", ".join(identity(item, seen) for item in items)


def _held(value: Any) -> Sequence[Any] | None:
    """What an object consists of, in an order of its own; None if it doesn't say."""
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.shape, value.tolist() if value.dtype.hasobject else value.tobytes()]
    if isinstance(value, Mapping):
        return [part for item in value.items() for part in item]
    if isinstance(value, AbstractSet):
        return sorted(map(identity, value))
    if isinstance(value, CodeType):
        return [value.co_code, value.co_consts, value.co_names]
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, FunctionType):
        cells = [_cell(cell) for cell in value.__closure__ or ()]
        return [value.__qualname__, value.__code__, value.__defaults__, value.__kwdefaults__, cells]
    if isinstance(value, nn.Module):
        return [part for item in sorted(vars(value).items()) if item[0] != "training" for part in item]
    if isinstance(value, Sequence) and not isinstance(value, memoryview):
        return list(value)
    slots = list(slots_of(value))
    if hasattr(value, "__dict__") or slots:
        own = sorted(getattr(value, "__dict__", {}).items())
        return [part for item in [*own, *slots] for part in item]
    return None


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that was never given a value
        return None


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """A digest of tensors; of large ones, of values spread over all of them."""
    found = hashlib.blake2b(digest_size=16)
    for name, tensor in tensors.items():
        flat = tensor.detach().reshape(-1)
        some = flat[:: -(-len(flat) // _MOST) or 1].cpu().contiguous()
        found.update(f"{name} {some.dtype} {len(flat)} ".encode())
        found.update(some.view(torch.uint8).numpy().tobytes() if len(flat) else b"")
    return found.hexdigest()

"""What an object holds, as a value that is equal for objects that hold the same, however they were made.

Members made by one function hold configurations, closures and tables of their own that are alike; members
made from modules may differ in them. A stack runs one network's code for all, so it must tell these apart.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import random
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plait.fleet._slots import slots_of

#: Told by type and value, as 1, 1.0 and True are equal.
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
#: Letters of a description from which on its digest stands for it.
_LONG = 200
#: Objects that one network is looked through for; of what is left, each is alike only to itself.
_MOST = 100_000
#: Where a configuration of transformers came from, which no forward pass depends on.
_ORIGIN = {"_name_or_path", "_commit_hash", "transformers_version"}
#: A module's own tables: `attributes` tells what is in them.
_TABLES = set(vars(nn.Module())) | {"generation_config"}
#: What recurrent layers keep of their weights besides.
_RECURRENT = {"_flat_weights", "_flat_weights_names", "_flat_weight_refs", "_all_weights"}


class Itself:
    """An object that can't be looked into: alike to what equals it."""

    def __init__(self, held: object) -> None:
        self.held = held

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Itself):
            return False
        try:
            return self.held is other.held or bool(self.held == other.held)
        except Exception:  # a comparison of the user's, or one that gives no single answer
            return False

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        kind = self.held if isinstance(self.held, type) else type(self.held)
        name = self.held.__name__ if isinstance(self.held, ModuleType | BuiltinFunctionType) else ""
        return f"<{kind.__module__}.{kind.__qualname__}{name and ' '}{name}>"


class Describer:
    """Describes what is found in one network.

    Args:
        network: its own modules and tensors are told by their names, not by what they hold.
    """

    def __init__(self, network: nn.Module) -> None:
        self._modules = {id(module): name for name, module in network.named_modules()}
        own = [*network.named_parameters(remove_duplicate=False), *network.named_buffers()]
        self._own = {id(tensor): name for name, tensor in own}
        self._network = network, own  # which keeps these ids their own
        self._taken: list[str] = []
        self._done: dict[int, tuple[Any, Any]] = {}
        self._inside: list[int] = []

    def __call__(self, value: Any) -> Any:
        """Nested tuples of plain values; a long one as a digest."""
        if type(value) in _PLAIN or isinstance(value, np.generic):
            return type(value).__name__, repr(value)
        if isinstance(value, Itself):
            return value
        if id(value) in self._own:
            self._taken.append(self._own[id(value)])
            return Itself(value)
        if id(value) in self._modules:
            return "module", self._modules[id(value)]
        if id(value) in self._inside:
            return "within", len(self._inside) - self._inside.index(id(value))
        if id(value) not in self._done:
            self._done[id(value)] = self._looked_into(value), value  # which keeps the id its own
        return self._done[id(value)][0]

    def taken(self) -> list[str]:
        """Names of the network's own tensors that came up since this was asked last."""
        found, self._taken = self._taken, []
        return found

    def _looked_into(self, value: Any) -> Any:
        if len(self._done) >= _MOST:
            return Itself(value)
        self._inside.append(id(value))
        try:
            return _short(self._parts(value))
        except Exception:  # of an object that does not let itself be looked into, or one too deep
            return Itself(value)
        finally:
            self._inside.pop()

    def _parts(self, value: Any) -> Any:
        if isinstance(value, Tensor | np.ndarray):
            return _numbers(value, self)
        held = next((look(value) for kinds, look in _LOOKS if isinstance(value, kinds)), _FIELDS)
        held = _fields(value) if held is _FIELDS else held
        return Itself(value) if held is None else (_name(value), *map(self, held))


def attributes(module: nn.Module) -> dict[str, Any]:
    """What a module holds besides modules, parameters, buffers and its mode; hooks in their order."""
    torchs = type(module).__module__.startswith("torch.")
    found = {
        key: value
        for key, value in vars(module).items()
        if key not in _TABLES and key not in _RECURRENT and not (torchs and key.startswith("_"))
    }
    for when in ("_forward_pre_hooks", "_forward_hooks"):
        named, always = getattr(module, f"{when}_with_kwargs"), module._forward_hooks_always_called
        hooks = [(hook, key in named, key in always) for key, hook in getattr(module, when).items()]
        found |= {when: hooks} if hooks else {}
    return found


def _name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _short(found: Any) -> Any:
    """A description, or its digest where it is long and says all."""
    if isinstance(found, Itself) or _has_itself(found):
        return found
    text = repr(found)
    if len(text) <= _LONG:
        return found
    return f"{found[0]} {hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"


def _has_itself(found: Any) -> bool:
    return isinstance(found, Itself) or (isinstance(found, tuple) and any(map(_has_itself, found)))


def _numbers(value: Tensor | np.ndarray, describe: Describer) -> Any:
    """A tensor or an array by all of its numbers."""
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return "array", value.shape, describe(value.tolist())
        return "array", str(value.dtype), value.shape, _digest(value.tobytes())
    try:
        flat = value.detach().reshape(-1).cpu().resolve_conj().resolve_neg().contiguous()
        found = flat.view(torch.uint8).numpy().tobytes() if len(flat) else b""
    except Exception:  # sparse, quantised, on no device
        return Itself(value)
    return "tensor", str(value.dtype), tuple(value.shape), value.requires_grad, _digest(found)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _of_function(value: FunctionType) -> Iterable[Any]:
    """A function by its code, what it encloses and its defaults; globals are those of one module."""
    cells = tuple(_enclosed(cell) for cell in value.__closure__ or ())
    return value.__code__, cells, value.__defaults__, value.__kwdefaults__, Itself(value.__globals__)


def _enclosed(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that was never given a value
        return None


def _of_module(value: nn.Module) -> Iterable[Any]:
    """A module that is no part of the network: all that it holds."""
    return [*sorted(attributes(value).items()), value._parameters, value._buffers, value._modules]


def _of_builtin(value: BuiltinFunctionType) -> Iterable[Any] | None:
    """A method of an object by that object; other functions are themselves."""
    return None if isinstance(value.__self__, ModuleType | None) else (value.__name__, value.__self__)


def _vars_of(value: Any) -> Any:
    """What a collection of a class of the user's holds besides."""
    return getattr(value, "__dict__", None) or None


def _fields(value: Any) -> Iterable[Any] | None:
    """An object's fields; None if it has none, or has only `==` to tell."""
    fields = dict(getattr(value, "__dict__", {}))
    if not hasattr(value, "__dict__") and type(value).__eq__ is not object.__eq__:
        return None
    fields |= slots_of(value)
    if hasattr(value, "to_json_string"):
        fields = {key: held for key, held in fields.items() if key not in _ORIGIN}
    return sorted(fields.items()) if fields or hasattr(value, "__dict__") else None


#: Stands for objects of no kind below.
_FIELDS: list[Any] = []
#: Kinds, and what is looked at of them; None for what is only alike to itself.
_LOOKS: list[tuple[Any, Callable[[Any], Iterable[Any] | None]]] = [
    ((type, ModuleType, Enum, torch.dtype, torch.device, logging.Logger), lambda _: None),
    (BuiltinFunctionType, _of_builtin),
    (FunctionType, _of_function),
    (MethodWrapperType, lambda value: (value.__name__, value.__self__)),
    (MethodType, lambda value: (value.__func__, value.__self__)),
    (CodeType, lambda value: (value.co_code, value.co_consts, value.co_names, value.co_freevars)),
    (functools.partial, lambda value: (value.func, value.args, value.keywords)),
    (weakref.ref, lambda value: (value(),)),
    (torch.Generator, lambda value: (value.get_state(),)),
    (np.random.Generator, lambda value: (value.bit_generator.state,)),
    (random.Random, lambda value: (value.getstate(),)),
    (nn.Module, _of_module),
    ((set, frozenset), lambda value: (sorted(map(repr, value)), _vars_of(value))),
    ((list, tuple, deque), lambda value: (*value, _vars_of(value))),
    (dict, lambda value: (*value.items(), _vars_of(value))),
]

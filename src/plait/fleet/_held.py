"""Whether anything that can be reached from some values has changed: a question for each step, so quick.

Objects are walked through once. From then on it is looked whether each place holds the same object still, and
the numbers of arrays and tensors are compared.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import random
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from operator import getitem, is_
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plait.fleet._slots import slots_of

#: Never change.
_PLAIN = {bool, int, float, complex, str, bytes, type(None)}
_FIXED = (CodeType, range, slice, type, ModuleType, Enum, torch.dtype, torch.device, logging.Logger)
#: Tables of more plain values are compared as a whole: a vocabulary, names of classes.
_LONG = 64
#: Bytes of a tensor beyond which PyTorch's count of changes tells of them, and not its numbers.
_LARGE = 1 << 20
#: Objects that are looked into; of more, each stands for itself.
_MOST = 100_000


class Held:
    """Values as they are, and all that can be reached from them; each part by the name that led to it.

    Args:
        passed: ids of objects that are not looked into.
        looks: whether another object is.
    """

    def __init__(self, passed: Iterable[int] = (), looks: Callable[[Any], bool] = lambda _: True) -> None:
        self.reached: list[Any] = []
        self._seen, self._looks, self._name = set(passed), looks, ""
        #: Columns: what holds it, by which key or name, what is there, which name led here.
        self._items, self._fields = _columns(), _columns()
        self._tables, self._sizes, self._tables_names = list[Any](), list[int](), list[str]()
        self._states, self._states_names = list[Callable[[], bool]](), list[str]()

    def place(self, table: Any, key: Any, name: str) -> None:
        """Hold what is in a place of a table."""
        self._name = name
        _put(self._items, table, key, table[key], name)
        self._walk(table[key])

    def cell(self, cell: Any, name: str) -> None:
        """Hold what a function encloses."""
        self._name = name
        for value in self._own(cell, ["cell_contents"]):
            self._walk(value)

    def size(self, table: Any, name: str) -> None:
        """Hold how many places a table has."""
        self._tables.append(table)
        self._sizes.append(len(table))
        self._tables_names.append(name)

    def value(self, value: Any, name: str) -> None:
        """Hold what can be reached from an object."""
        self._name = name
        self._walk(value)

    def same(self) -> bool:
        """Whether every place holds the very object that it held."""
        try:
            return (
                all(map(is_, map(getitem, *self._items[:2]), self._items[2]))
                and all(map(is_, map(getattr, *self._fields[:2]), self._fields[2]))
                and list(map(len, self._tables)) == self._sizes
                and all(same() for same in self._states)
            )
        except Exception:  # a place that is no more
            return False

    def changed(self, alike: Callable[[Any, Any], bool]) -> str:
        """A name that leads to what has changed; empty if all other objects are alike."""
        for look, columns in ((getitem, self._items), (getattr, self._fields)):
            for owner, key, before, name in zip(*columns, strict=True):
                try:
                    now = look(owner, key)
                except Exception:  # it is no more
                    return name
                if now is not before and not alike(now, before):
                    return name
        for table, size, name in zip(self._tables, self._sizes, self._tables_names, strict=True):
            if len(table) != size:
                return name
        found = zip(self._states, self._states_names, strict=True)
        return next((name for same, name in found if not same()), "")

    def _walk(self, value: Any) -> None:
        todo = [value]
        while todo:
            found = todo.pop()
            if type(found) in _PLAIN or id(found) in self._seen or isinstance(found, _FIXED):
                continue
            if len(self.reached) < _MOST and self._looks(found):
                self._seen.add(id(found))
                self.reached.append(found)
                todo.extend(self._inside(found))

    def _inside(self, value: Any) -> Iterable[Any]:
        """What an object holds; its places are noted."""
        if isinstance(value, Tensor | np.ndarray):
            return self._numbers(value)
        if isinstance(value, FunctionType):
            cells = [
                found for cell in value.__closure__ or () for found in self._own(cell, ["cell_contents"])
            ]
            return [*self._own(value, ["__defaults__", "__kwdefaults__"]), *cells]
        if (look := next((look for kinds, look in _LOOKS if isinstance(value, kinds)), None)) is not None:
            return look(value)
        if (state := _state_of(value)) is not None:
            self._state(functools.partial(_equal, state, state()))
            return ()
        found: list[Any] = []
        if isinstance(value, dict):
            found += self._table(value, list(value), dict)
        elif isinstance(value, list):
            found += self._table(value, range(len(value)), list)
        elif isinstance(value, tuple):
            found += value
        elif isinstance(value, set | frozenset | deque):
            found += (held := list(value))
            self._state(lambda: len(value) == len(held) and all(map(is_, value, held)))
        if isinstance(fields := getattr(value, "__dict__", None), dict):
            found += self._table(fields, list(fields), dict)
        return found + self._own(value, [name for name, _ in slots_of(value)])

    def _table(self, table: Any, keys: Iterable[Any], kind: Any) -> list[Any]:
        """The values of a dictionary or a list."""
        values = [kind.__getitem__(table, key) for key in keys]
        if len(values) > _LONG and all(type(value) in _PLAIN for value in values):
            self._state(functools.partial(kind.__eq__, table, kind(table)))
            return []
        if type(table).__getitem__ is not kind.__getitem__:  # which may make a new object each time
            each = dict.values if kind is dict else list.__iter__
            self._state(lambda: len(table) == len(values) and all(map(is_, each(table), values)))
            return values
        self.size(table, self._name)
        for key, value in zip(keys, values, strict=True):
            _put(self._items, table, key, value, self._name)
        return values

    def _own(self, owner: Any, names: Iterable[str]) -> list[Any]:
        """Attributes of an object; none where a name was never given a value."""
        found = []
        for name in names:
            with contextlib.suppress(AttributeError, ValueError):
                value = getattr(owner, name)
                _put(self._fields, owner, name, value, self._name)
                found.append(value)
        return found

    def _numbers(self, value: Any) -> list[Any]:
        """A tensor or an array by all of its numbers."""
        if isinstance(value, np.ndarray) and value.dtype.hasobject:
            held = list(value.flat)
            self._state(lambda: len(held) == value.size and all(map(is_, value.flat, held)))
            return held
        try:
            same = _numbers_of(value)
            if same():
                self._state(same)
        except Exception:  # sparse, or of a transform that has ended: stands for itself
            return []
        return []

    def _state(self, same: Callable[[], bool]) -> None:
        self._states.append(same)
        self._states_names.append(self._name)


def _columns() -> tuple[list[Any], list[Any], list[Any], list[str]]:
    return [], [], [], []


def _put(columns: tuple[list[Any], ...], *place: Any) -> None:
    for column, each in zip(columns, place, strict=True):
        column.append(each)


def _numbers_of(value: Tensor | np.ndarray) -> Callable[[], bool]:
    if isinstance(value, np.ndarray):
        return functools.partial(_alike, value, value.copy())
    if value.nbytes <= _LARGE:
        return functools.partial(_alike, value, value.detach().clone())

    def state() -> tuple[int, int]:
        return value._version, value.data_ptr()

    return functools.partial(_equal, state, state())


def _alike(now: Any, before: Any) -> bool:
    if now.shape != before.shape or now.dtype != before.dtype:
        return False
    if isinstance(now, np.ndarray):
        return np.array_equal(now, before, equal_nan=now.dtype.kind in "fc")
    return torch.equal(now, before) or torch.allclose(now, before, rtol=0, atol=0, equal_nan=True)


def _equal(state: Callable[[], Any], before: Any) -> bool:
    return bool(state() == before)


def _state_of(value: Any) -> Callable[[], Any] | None:
    """What tells a generator of random numbers."""
    if isinstance(value, torch.Generator):
        return lambda: value.get_state().tolist()
    if isinstance(value, np.random.Generator):
        return lambda: repr(value.bit_generator.state)
    return value.getstate if isinstance(value, random.Random) else None


#: What stays the same itself, and leads to what may not.
_LOOKS: list[tuple[Any, Callable[[Any], Iterable[Any]]]] = [
    (BuiltinFunctionType | MethodWrapperType, lambda value: (value.__self__,)),
    (MethodType, lambda value: (value.__func__, value.__self__)),
    (functools.partial, lambda value: (value.func, value.args, value.keywords, vars(value))),
    (weakref.ref, lambda value: (value(),)),
]

"""Values of every kind that code may reach, told in a process of its own."""

from __future__ import annotations

import argparse
import array
import functools
import io
import itertools
import json
import logging
import operator
import re
import sys
import threading
import types
from abc import ABCMeta
from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict, deque, namedtuple
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID
from weakref import WeakSet

import numpy as np
import scipy.stats
import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from plait.study._code import code_of


@dataclass(slots=True)
class Slotted:
    scale: float


class Base:
    __slots__ = ("__hidden", "first")

    def __init__(self, scale: float) -> None:
        self.first, self.__hidden = 1.0, scale


class Derived(Base):
    __slots__ = ("second",)

    def __init__(self, scale: float) -> None:
        super().__init__(scale)
        self.second = 2.0


class Mixed(Base):
    """With a `__dict__` besides its base's slots."""

    def __init__(self, scale: float) -> None:
        super().__init__(1.0)
        self.scale = scale


class OwnState:
    """Hides from its attributes what it is pickled by."""

    def __init__(self, scale: float) -> None:
        self.told = lambda: scale

    def __getstate__(self) -> float:
        return self.told()


class Refuses:
    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise RuntimeError("it refuses")


class Endless:
    """Pickled by another one of its kind, which is pickled by another one, and so on."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __reduce__(self) -> Any:
        return Endless, (Endless(self.scale),)


class Listed(list[float]):
    def __init__(self, scale: float) -> None:
        super().__init__([1.0])
        self.scale = scale


class Named(dict[str, float]):
    def __init__(self, scale: float) -> None:
        super().__init__(a=1.0)
        self.scale = scale


class Whole(int):
    scale: float


class Grouped(frozenset[str]):
    scale: float


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Kind(Enum):
    A = 1.0
    B = 2.0


class Scaled(torch.nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


Pair = namedtuple("Pair", "first scale")


def cycle(scale: float) -> Any:
    one, other = types.SimpleNamespace(scale=1.0), types.SimpleNamespace(scale=scale)
    one.other, other.other = other, one
    one.all = {id: other}
    return one


def with_attribute(value: Any, scale: float) -> Any:
    value.scale = scale
    return value


def dispatching(scale: float) -> Any:
    found = functools.singledispatch(lambda _: 1.0)
    found.register(int, lambda _: scale)
    return found


def dispatching_method(scale: float) -> Any:
    method = functools.singledispatchmethod(lambda self, x: x)
    method.register(int, lambda self, x: x * scale)
    return type("Dispatching", (), {"method": method})


def loaded(scale: float) -> Any:
    """Scripted, and without any Python code."""
    written = io.BytesIO()
    torch.jit.save(torch.jit.script(Scaled(scale)), written)
    written.seek(0)
    return torch.jit.load(written)


def double(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def triple(x: torch.Tensor) -> torch.Tensor:
    return x * 3


def scripted(scale: float) -> Any:
    return torch.jit.script(double if scale == 2 else triple)


def graph_of(scripted: Any) -> Any:
    """Without the code that it was made of."""
    del scripted._torchdynamo_inline
    return scripted


def traced(scale: float) -> Any:
    """With a tensor that its graph doesn't show."""
    return graph_of(torch.jit.trace(lambda x: x + scale * torch.ones(99), torch.ones(99)))


def in_a_set(scale: float) -> Any:
    """Elements that differ in nothing that is printed, in a set that they hold themselves."""
    held = {Hashed(1.0), Hashed(scale), Hashed(3.0)}
    for each in held:
        each.around = held
    return held


class Hashed:
    __slots__ = ("around", "scale")

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __repr__(self) -> str:
        return "hashed"


def padded(scale: float) -> Any:
    found = np.zeros(2, np.dtype([("a", "i1"), ("b", "f8")], align=True))
    found["b"] = scale
    return found


def object_array(scale: float) -> Any:
    found = np.empty((2, 1), object)
    found[0, 0], found[1, 0] = Slotted(scale), lambda: scale
    return found


def chain(scale: float) -> Any:
    """Longer than Python goes into itself."""
    found: Any = scale
    for _ in range(3001):
        found = Slotted(found)
    return found


#: For weak sets, which keep nothing.
KEPT = [Scaled(float(number)) for number in range(9)]
#: Name → what makes a value that holds a number.
KINDS: dict[str, Any] = {
    "slots": Slotted,
    "slots of a base": Derived,
    "attributes beside slots": Mixed,
    "a namespace": lambda s: types.SimpleNamespace(scale=s),
    "a namespace with a function": lambda s: types.SimpleNamespace(func=print, scale=s),
    "arguments": lambda s: argparse.Namespace(func=print, out=sys.stdout, scale=s),
    "a function in a namespace": lambda s: types.SimpleNamespace(f=lambda: s),
    "a NumPy scalar": np.float32,
    "a NumPy date": lambda s: np.datetime64("2020-01-01") + np.timedelta64(int(s), "D"),
    "a NumPy array": lambda s: np.array([1.0, s]),
    "an object array": object_array,
    "an array with gaps": padded,
    "a record": lambda s: padded(s)[0],
    "a masked array": lambda s: np.ma.masked_array([1.0, 2.0], [s > 1, False]),
    "a NumPy type": lambda s: np.dtype("f4" if s == 1 else "f8"),
    "a generator of numbers": lambda s: np.random.default_rng(int(s)),
    "a fraction": lambda s: Fraction(int(s), 7),
    "a decimal": Decimal,
    "a deque": lambda s: deque([1.0, s]),
    "a deque's length": lambda s: deque([1.0], maxlen=int(s)),
    "a range": lambda s: range(int(s)),
    "a slice": lambda s: slice(int(s)),
    "a time": lambda s: datetime(2020, 1, int(s), tzinfo=timezone.utc),
    "a day": lambda s: date(2020, 1, int(s)),
    "a time span": timedelta,
    "a path": lambda s: Path("a") / str(s),
    "a pattern": lambda s: re.compile(f"a{{{int(s)}}}"),
    "an array": lambda s: array.array("d", [s]),
    "bytes that change": lambda s: bytearray([int(s)]),
    "an identifier": lambda s: UUID(int=int(s)),
    "a counter": lambda s: Counter(a=int(s)),
    "a default": lambda s: defaultdict(functools.partial(float, s)),
    "an order": lambda s: OrderedDict([("a", 1), ("b", 2)] if s == 1 else [("b", 2), ("a", 1)]),
    "a mapping's order": lambda s: {"a": 1, "b": 2} if s == 1 else {"b": 2, "a": 1},
    "chained mappings": lambda s: ChainMap({}, {"a": s}),
    "a user's mapping": lambda s: UserDict(a=s),
    "a view": lambda s: types.MappingProxyType({"a": s}),
    "a key": lambda s: {Slotted: 1, (1, Pair(1, s)): 2},
    "a named tuple": lambda s: Pair(1.0, s),
    "an attribute of a list": Listed,
    "an attribute of a mapping": Named,
    "an attribute of a number": lambda s: with_attribute(Whole(1), s),
    "a number of a class": lambda s: Whole(int(s)),
    "an attribute of a set": lambda s: with_attribute(Grouped("ab"), s),
    "a member": Kind,
    "a level": lambda s: Level(int(s)),
    "a set": lambda s: {"a", "b", "c", str(s)},
    "a set of instances": in_a_set,
    "sets in a set": lambda s: frozenset([frozenset(["a", "b"]), frozenset(["c", str(s)])]),
    "a deque of sets": lambda s: deque([{"a", "b", "c", str(s)}]),
    "what gets an item": lambda s: operator.itemgetter(int(s)),
    "what calls a method": lambda s: operator.methodcaller("scale", s),
    "a bound method of a list": lambda s: [1.0, s].index,
    "an iterator": lambda s: itertools.repeat(s, 2),
    "state of its own": OwnState,
    "what refuses": Refuses,
    "what has no end": Endless,
    "a cycle": cycle,
    "a long chain": chain,
    "a weak set": lambda s: WeakSet([Slotted, Pair, Kind, Level, Whole if s == 1 else Named]),
    "a weak set of instances": lambda s: WeakSet(KEPT[int(s):]),
    "an attribute of a function": lambda s: with_attribute(lambda: 1, s),
    "an attribute of a method's function": lambda s: types.MethodType(with_attribute(lambda _: 1, s), 1),
    "an attribute of a wrapped function": lambda s: functools.wraps(with_attribute(lambda: 1, s))(lambda: 1),
    "a function that dispatches": dispatching,
    "a method that dispatches": dispatching_method,
    "a metaclass": lambda s: type("Meta", (type,), {"scale": s})("Made", (), {}),
    "a metaclass of another package": lambda s: (type if s == 1 else ABCMeta)("Made", (), {}),
    "a base": lambda s: type("Made", (torch.nn.Tanh if s == 1 else torch.nn.ReLU,), {}),
    "a closure of another package": lambda s: get_ema_multi_avg_fn(s / 10),
    "a scripted function": scripted,
    "a scripted function's graph": lambda s: graph_of(scripted(s)),
    "a traced function": lambda s: graph_of(torch.jit.trace(lambda x: x * s, torch.ones(2))),
    "a traced tensor": traced,
    "a scripted module": lambda s: torch.jit.script(Scaled(s)),
    "a loaded module": loaded,
    "a compiled function": lambda s: torch.compile(lambda x: x * s),
    "a compiled module": lambda s: torch.compile(Scaled(s)),
    "a wrapped compiled function": lambda s: functools.wraps(torch.compile(double))(lambda x: x * s),
    "a function not to be compiled": lambda s: torch.compiler.disable(lambda x: x * s),
    "a size": lambda s: torch.Size([int(s)]),
    "a distribution": lambda s: torch.distributions.Normal(0.0, s),
    "a distribution of scipy": lambda s: scipy.stats.norm(loc=s),
    "a layout": lambda s: torch.strided if s == 1 else torch.sparse_coo,
}  # fmt: skip
#: What belongs to a process: it is named, and nothing else of it is told.
OF_PROCESS: dict[str, Any] = {
    "a logger": lambda: logging.getLogger("plait.test"),
    "a lock": threading.Lock,
    "a condition": threading.Condition,
    "a thread": threading.current_thread,
    "a file": lambda: sys.stdout,
    "a generator": lambda: (n for n in range(3)),
    "an object": object,
}


def told(value: Any) -> str:
    """All that is told of a function whose closure holds a value."""

    def function() -> Any:
        return value

    return json.dumps(code_of([function]), sort_keys=True)


if __name__ == "__main__":
    made = {name: told(make(2.0)) for name, make in KINDS.items()}
    made |= {name: told(make()) for name, make in OF_PROCESS.items()}
    print(json.dumps(made))

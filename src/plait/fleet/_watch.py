"""What a network's Python code may change or read beside tensors, which no recording of a pass follows."""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from types import CellType, CodeType, FunctionType
from typing import Any, cast

import numpy as np
from torch import nn

from plait.fleet._alike import Describer, attributes

#: Packages whose modules keep no state of their own in globals that a forward pass depends on.
_KNOWN = {*sys.stdlib_module_names, "numpy", "torch", "transformers", "peft", "plait"}
_PLAIN = int | float | str | None | list | tuple | set | deque | dict | np.random.Generator | random.Random


def numbers(network: nn.Module) -> dict[tuple[str, str], Any]:
    """What a network's modules hold as attributes, as it is: values, collections, objects, generators."""
    describe = Describer(network)
    return {
        (name, key): describe(value)
        for name, module in network.named_modules()
        for key, value in attributes(module).items()
    }


def generators() -> tuple[Any, ...]:
    """The states of Python's and NumPy's own generators."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return random.getstate(), kind, cast("Any", keys).tobytes(), *rest


class Surroundings:
    """Values outside of a network that its code names: globals, class attributes, what closures hold.

    Functions that it calls by such names are followed; packages that are known to keep nothing there are not.
    """

    def __init__(self, network: nn.Module) -> None:
        self._places: dict[tuple[int, str], tuple[Mapping[str, Any] | CellType, str]] = {}
        self._seen: set[int] = set()
        for module in network.modules():
            for kind in type(module).__mro__:
                if _known(kind):
                    continue
                for key, value in vars(kind).items():
                    self._visit(vars(kind), key, value)
            for key, value in vars(module).items():
                if isinstance(value, FunctionType):
                    self._visit(vars(module), key, value)

    def now(self) -> tuple[Any, ...]:
        """The values as they are."""
        return tuple(_now(_held(place, name)) for place, name in self._places.values())

    def _visit(self, place: Mapping[str, Any] | CellType, name: str, value: Any) -> None:
        """Watch a plain value, or whatever a function names."""
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        if isinstance(value, FunctionType):
            if id(value) not in self._seen and not _known(value):
                self._seen.add(id(value))
                self._follow(value)
        elif isinstance(value, _PLAIN) and not name.startswith("__"):
            self._places[id(place), name] = place, name

    def _follow(self, function: FunctionType) -> None:
        names = set(_names(function.__code__))
        for name in names & function.__globals__.keys():
            value = function.__globals__[name]
            self._visit(function.__globals__, name, value)
            if hasattr(value, "__dict__") and not isinstance(value, FunctionType) and not _known(value):
                for own in names & vars(value).keys():
                    self._visit(vars(value), own, vars(value)[own])
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            self._visit(cell, name, _held(cell, name))


def _held(place: Mapping[str, Any] | CellType, name: str) -> Any:
    if not isinstance(place, CellType):
        return place.get(name)
    try:
        return place.cell_contents
    except ValueError:  # not filled yet
        return None


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _known(value: Any) -> bool:
    """Whether a class, function, module or object is of a known package."""
    name = getattr(value, "__module__", None) or getattr(value, "__name__", "")
    return str(name).partition(".")[0] in _KNOWN


def _now(value: Any) -> Any:
    if isinstance(value, int | float | str | None):
        return value
    if isinstance(value, list | tuple | set | deque):
        return type(value).__name__, tuple(_now(inner) for inner in value)
    if isinstance(value, dict):
        return tuple((key, _now(inner)) for key, inner in value.items())
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, random.Random):
        return value.getstate()
    return id(value)

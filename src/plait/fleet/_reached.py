"""What a network's Python code names outside of it: globals, class attributes, what closures hold.

Functions that it calls by such names are followed, and classes of objects that it finds there; packages that
are known to keep nothing there are not.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import random
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from types import CellType, CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plait.fleet._alike import attributes
from plait.fleet._held import Held

#: Packages whose modules keep no state of their own in globals that a forward pass depends on.
_KNOWN = {*sys.stdlib_module_names, "numpy", "torch", "transformers", "peft", "plait"}
#: What holds values of the user's, though its class is of such a package.
_HOLDERS = (
    *(list, tuple, set, frozenset, deque, dict, SimpleNamespace, functools.partial, MethodType, FunctionType),
    *(Tensor, np.ndarray, nn.Module, np.random.Generator, random.Random, torch.Generator),
)


def looked_into(value: Any) -> bool:
    """Whether what an object holds may be the user's."""
    if isinstance(value, FunctionType):
        return not _known(value)
    return isinstance(value, _HOLDERS) or not _known(type(value))


def reach(network: nn.Module, others: Iterable[Any], held: Held) -> None:
    """Hold the places that code reads.

    Args:
        network: whose modules run; what attributes of theirs hold is looked at for its code alone.
        others: objects whose code runs as well, and what they hold is read.
        held: takes what is in the places.
    """
    _Reach(held).all(network, others)


class _Reach:
    """Follows code to the places that it reads."""

    def __init__(self, held: Held) -> None:
        self._held, self._seen, self._noted = held, set[int](), set[tuple[int, str]]()

    def all(self, network: nn.Module, others: Iterable[Any]) -> None:
        within = Held(map(id, network.modules()), looked_into)
        for module in network.modules():
            self._kind(type(module))
            for key, value in attributes(module).items():
                within.value(value, key)
        for value in within.reached:
            self._meet(value)
        for value in others:
            self._meet(value)
            self._held.value(value, type(value).__name__)
        for value in self._held.reached:  # which may find more, at the end of this list
            self._meet(value)

    def _meet(self, value: Any) -> None:
        """Follow the code of an object."""
        if isinstance(value, FunctionType):
            self._function(value)
        elif not isinstance(value, _HOLDERS) or isinstance(value, nn.Module):
            self._kind(type(value))

    def _kind(self, kind: type) -> None:
        for each in kind.__mro__:
            if _known(each) or id(each) in self._seen:
                continue
            self._seen.add(id(each))
            for name, value in list(vars(each).items()):
                self._visit(vars(each), name, value)

    def _visit(self, table: Any, name: str, value: Any) -> None:
        """Note a place that holds a value; follow one that holds code."""
        for function in _functions(value):
            self._function(function)
        if isinstance(value, type):
            self._kind(value)
        elif not (name.startswith("__") or isinstance(value, ModuleType | _CODE)):
            self._note(table, name)

    def _note(self, table: Any, name: str) -> None:
        if (id(table), name) in self._noted:
            return
        self._noted.add((id(table), name))
        if isinstance(table, CellType):
            self._held.cell(table, name)
        else:
            self._held.place(table, name, name)

    def _function(self, function: FunctionType) -> None:
        """Follow the names in a function."""
        if _known(function) or id(function) in self._seen:
            return
        self._seen.add(id(function))
        names, found = set(_names(function.__code__)), function.__globals__
        for name in sorted(_globals(function.__code__) & found.keys()):
            value = found[name]
            self._visit(found, name, value)
            if isinstance(value, ModuleType) and not _known(value):
                for own in sorted(names & vars(value).keys()):
                    self._visit(vars(value), own, vars(value)[own])
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # a name that was never given a value
                self._visit(cell, name, cell.cell_contents)


#: What holds code, and nothing that it changes.
_CODE = FunctionType | staticmethod | classmethod | property | functools.cached_property


def _functions(value: Any) -> Iterator[FunctionType]:
    """The functions of a method, a property, or whatever wraps one."""
    parts = [value]
    if isinstance(value, staticmethod | classmethod | MethodType):
        parts = [value.__func__]
    elif isinstance(value, property):
        parts = [value.fget]
    elif isinstance(value, functools.cached_property | functools.partial):
        parts = [value.func]
    for part in parts:
        inner = getattr(part, "__dict__", {}).get("__wrapped__")
        yield from (each for each in (part, inner) if isinstance(each, FunctionType))


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _codes(inner)


def _names(code: CodeType) -> Iterator[str]:
    for each in _codes(code):
        yield from each.co_names


@functools.cache
def _globals(code: CodeType) -> frozenset[str]:
    """The names that code looks up as globals."""
    found = (step for each in _codes(code) for step in dis.get_instructions(each))
    return frozenset(step.argval for step in found if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"))


def _known(value: Any) -> bool:
    """Whether a class, function or module is of a known package."""
    name = getattr(value, "__module__", None) or getattr(value, "__name__", "")
    return str(name).partition(".")[0] in _KNOWN

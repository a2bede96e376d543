"""A plain function as a method.

A function of a cell is a rule. One of `(models, base)` is a rule too if it uses nothing but arithmetic and
the operations of `plait.numerics`: then it streams, and runs compiled. Otherwise it gets whole tensors, each
in its own shape, and may use all of torch.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from plait.engine._trace import TraceCell
from plait.errors import InputError
from plait.methods import Method, Settings
from plait.numerics import Expr

Function = Callable[..., Any]


def as_method(function: Any) -> Method:
    """A method as it is, or a plain function of a cell, or of `(models, base)`.

    Raises:
        InputError: it can't be called so.
    """
    if isinstance(function, Method):
        return function
    name = getattr(function, "__name__", "function")
    count = _arguments(function)
    if count not in (1, 2):
        raise InputError(
            f"`{name}` can't be a merge method", hint="give a function of a cell, or one of (models, base)"
        )
    words = (name, "a function", "given by the user")
    if count == 1:
        traced = functools.cache(lambda models: _trace(function, models))
        return Method(
            *words,
            function,
            base="optional",
            symmetric=False,
            check=lambda settings: traced(settings.models).problem,
            by_row=traced(2).ranks,
        )
    combine = functools.wraps(function)(lambda c: function(c.models, c.base))
    traced = functools.cache(lambda models: _trace(combine, models))
    return Method(
        *words,
        combine,
        base="optional",
        symmetric=False,
        whole=lambda settings: traced(settings.models).problem is not None,
    )


def _arguments(function: Any) -> int:
    """How many arguments a function wants; those with defaults are its own, but for `base`."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return 0
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    wanted = [p for p in parameters if p.default is inspect.Parameter.empty or p.name == "base"]
    return len(wanted) if all(p.kind in places for p in wanted) else 0


@dataclass(frozen=True)
class _Trace:
    """What following a function over expressions showed: why it is no rule, and whether it ranks rows."""

    problem: str | None
    ranks: bool = False


@dataclass(frozen=True)
class _Site:
    """Where a function is traced."""

    tensors: range
    has_base: bool
    method: Method
    settings: Settings


def _trace(function: Function, models: int) -> _Trace:
    """Follow a function with a base, then without: one of the two is enough."""
    problem = None
    method = Method("traced", "", "", function, by_row=True)
    for has_base in (True, False):
        cell = TraceCell(_Site(range(models + has_base), has_base, method, Settings({}, {}, models, 0)), {})
        try:
            found = function(cell)
        except Exception as error:  # whatever the user's function raises
            problem = problem or f"`{_name(function)}` is no rule: {error}"
            continue
        if isinstance(found, Expr):
            return _Trace(None, bool(cell.ranks))
        problem = problem or f"`{_name(function)}` is no rule: it gives a {type(found).__name__}"
    return _Trace(problem)


def _name(function: Function) -> str:
    return getattr(function, "__name__", "function")

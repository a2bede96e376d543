"""One setting's value: its type checked, its gradient interpolated.

A gradient of n values v_0 … v_(n-1) at t in [0, 1] is piecewise linear: with s = t·(n-1), i = ⌊s⌋ and
f = s - i it is (1-f)·v_i + f·v_(i+1). Booleans and text have nothing between them: v_i is taken.
"""

from __future__ import annotations

from typing import Any

from plait.recipe._schema import Grammar, Scalar

#: The types that a parameter may have.
Kind = type[float] | type[int] | type[bool] | type[str]

_NAMES: dict[Any, str] = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
_TRUE = {"true", "yes", "on", "y", "t"}
_FALSE = {"false", "no", "off", "n", "f"}


def layer_position(index: int, count: int) -> float:
    """Where a layer stands in its output slice: 0 for the first of `count`, 1 for the last or the only one.

    Tensors before the first layer and after the last one take 0.
    """
    return index / (count - 1) if count > 1 else 1.0


def interpolate(values: tuple[Scalar, ...], t: float) -> Scalar:
    """The gradient's value at `t` in [0, 1]."""
    scaled = t * (len(values) - 1)
    low = int(scaled)
    if any(isinstance(value, bool | str) for value in values):
        return values[low]
    high = min(len(values) - 1, low + 1)
    fraction = scaled - low
    return (1 - fraction) * values[low] + fraction * values[high]  # type: ignore[operator]


def coerce(value: Scalar, kind: Kind, grammar: Grammar) -> Scalar:
    """The value as a `kind`; mergekit's grammar is as lenient as mergekit (1 is true, true is 1.0).

    Raises:
        TypeError: it is no such thing; the message says what it must be.
    """
    lenient = grammar == "mergekit"
    if kind is bool:
        return _boolean(value, lenient)
    if kind is str:
        if isinstance(value, str):
            return value
    elif isinstance(value, bool):
        if lenient:
            return kind(value)
    elif isinstance(value, int | float) and (kind is float or value == int(value)):
        return kind(value)
    raise TypeError(_NAMES[kind])


def _boolean(value: Scalar, lenient: bool) -> bool:
    if isinstance(value, bool):
        return value
    if lenient and isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if lenient and isinstance(value, str) and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    raise TypeError(_NAMES[bool])

"""nearswap (alchemonaut, 2024): move each entry of the base toward the other model by at most t.

w = min(t / max(|a − b|, 1e-6), 1);  θ = w·b + (1 − w)·a, with a the base.
"""

from __future__ import annotations

from plait.methods._spec import Cell, Method, Option
from plait.numerics import Value, absolute, maximum, minimum


def _nearswap(c: Cell) -> Value:
    a, b = c.base, c.models[0]
    w = minimum(c.option("t") / maximum(absolute(a - b), 1e-6), 1.0)
    return w * b + (1.0 - w) * a


METHOD = Method(
    "nearswap",
    "move the base toward the other model by at most t per entry",
    "huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
    _nearswap,
    (Option("t", None, "the largest step, above 0", low=0.0),),
    base="required",
    max_models=1,
)

"""SLERP (Shoemake, SIGGRAPH 1985), per tensor: along the great circle from the base a to the model b.

c = cos(a, b), Ω = arccos c;  θ = [sin((1−t)Ω)·a + sin(tΩ)·b] / sin Ω;  linear where |c| > 0.9995.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plait.methods._gram import combination, gram_stage, norms
from plait.methods._spec import Cell, Method, Numbers, Option, Settings
from plait.numerics import Value


def _pair(c: Cell) -> tuple[Value, Value]:
    return c.base, c.models[0]


def _coefficients(gram: Numbers, settings: Settings) -> Sequence[Numbers]:
    t, n = settings.shared["t"], norms(gram)
    unit = np.where(n > 1e-8, n, 1.0)
    cos = np.clip(gram[..., 0, 1] / (unit[..., 0] * unit[..., 1]), -1.0, 1.0)
    straight = np.abs(cos) > 0.9995
    angle = np.arccos(np.where(straight, 0.0, cos))
    a = np.where(straight, 1.0 - t, np.sin((1.0 - t) * angle) / np.sin(angle))
    b = np.where(straight, t, np.sin(t * angle) / np.sin(angle))
    return [a, b]


METHOD = Method(
    "slerp",
    "spherical interpolation from the base to one model",
    "Shoemake, SIGGRAPH 1985",
    lambda c: combination(c, _pair(c)),
    (Option("t", None, "0 is the base, 1 the other model"),),
    lambda settings: [gram_stage(_pair, _coefficients)],
    base="required",
    max_models=1,
)

"""Model Stock (Jang, Yun and Han, ECCV 2024, arXiv:2403.19522), per tensor or per row.

cos θ = mean over pairs of cos(τ_i, τ_j);  r = T cos θ / (1 + (T−1) cos θ);  θ = r·mean_t θ_t + (1−r)·θ₀.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plait.methods._consensus import total
from plait.methods._gram import gram_stage, norms
from plait.methods._spec import Cell, Method, Numbers, Option, Settings
from plait.numerics import Value


def _vectors(c: Cell) -> Sequence[Value]:
    return c.delta


def _ratio(gram: Numbers, settings: Settings) -> Sequence[Numbers]:
    count, n = gram.shape[-1], norms(gram)
    pairs = [(i, j) for i in range(count) for j in range(i)]
    # Task vectors this short have no direction.
    least = max(settings.shared["eps"], np.finfo(np.float64).tiny)
    cos = sum(
        np.clip(gram[..., i, j] / np.maximum(n[..., i] * n[..., j], least), -1.0, 1.0) for i, j in pairs
    ) / len(pairs)
    pole = 1.0 + (count - 1) * cos
    flat = np.abs(pole) < 1e-6
    return [np.where(flat, 0.0, count * cos / np.where(flat, 1.0, pole))]


def _combine(c: Cell) -> Value:
    r = c.stat("coefficient")[0]
    return r * (total(c.models) / float(len(c.models))) + (1.0 - r) * c.base


METHOD = Method(
    "model_stock",
    "between the average and the base, by the angle of the task vectors",
    "arXiv:2403.19522",
    _combine,
    (
        Option("filter_wise", False, "an angle for each row, not for each tensor", kind="bool"),
        Option("eps", 1e-12, "least product of two lengths that is divided by", mergekit=1e-6, low=0.0),
    ),
    lambda settings: [gram_stage(_vectors, _ratio, "row" if settings.shared["filter_wise"] else "tensor")],
    base="required",
    min_models=2,
)

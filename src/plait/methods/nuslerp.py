"""NuSLERP (mergekit): SLERP with weights, of the models or, with a base, of their task vectors.

t = w₂ / (w₁ + w₂), ½ where the sum is 0; linear only where the two are parallel or opposite.
`nuslerp_flatten` takes the tensor as one vector; without it every row is a vector, or with `nuslerp_row_wise`
every column (along the first axis, whatever the others are).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from plait.methods._gram import combination, gram_stage, norms
from plait.methods._spec import Cell, Method, Numbers, Option, Settings, Stage
from plait.numerics import Value


def _fraction(weights: Sequence[float]) -> float:
    whole = weights[0] + weights[1]
    return 0.5 if abs(whole) < 1e-6 else weights[1] / whole


def _coefficients(gram: Numbers, settings: Settings) -> Sequence[Numbers]:
    t, n = _fraction(settings.per_model["weight"]), np.maximum(norms(gram), 1e-7)
    cos = np.clip(gram[..., 0, 1] / (n[..., 0] * n[..., 1]), -1.0, 1.0)
    # Sums of products are not exact enough to tell a smaller angle from none.
    straight = 1.0 - cos * cos <= 1e-12
    angle = np.arccos(np.where(straight, 0.0, cos))
    a = np.where(straight, 1.0 - t, np.sin((1.0 - t) * angle) / np.sin(angle))
    b = np.where(straight, t, np.sin(t * angle) / np.sin(angle))
    return [a, b]


def _vectors(c: Cell) -> Sequence[Value]:
    return c.models if c.base is None else c.delta


def _columns(settings: Settings) -> bool:
    return bool(settings.shared["nuslerp_row_wise"] and not settings.shared["nuslerp_flatten"])


def _combine(c: Cell) -> Value:
    xs = _vectors(c)
    if c.option("nuslerp_row_wise") and not c.option("nuslerp_flatten"):
        merged = _by_column(xs[0], xs[1], c)
    else:
        merged = combination(c, xs)
    return merged if c.base is None else c.base + merged


def _by_column(a: torch.Tensor, b: torch.Tensor, c: Cell) -> torch.Tensor:
    x, y = a.double(), b.double()
    gram = np.stack([v.sum(0).cpu().numpy() for v in (x * x, x * y, x * y, y * y)], -1).reshape(-1, 2, 2)
    weights = tuple(float(w) for w in c.each("weight"))
    settings = Settings({}, {"weight": weights}, 2, a.numel())
    found = [torch.from_numpy(np.ascontiguousarray(k)) for k in _coefficients(gram, settings)]
    p, q = (k.to(a).reshape(a.shape[1:]) for k in found)
    return p * a + q * b


def _stages(settings: Settings) -> Sequence[Stage]:
    if _columns(settings):
        return []
    scope = "tensor" if settings.shared["nuslerp_flatten"] else "row"
    return [gram_stage(_vectors, _coefficients, scope)]


METHOD = Method(
    "nuslerp",
    "spherical interpolation of two models with weights",
    "mergekit",
    _combine,
    (
        Option("weight", 1.0, "the model's share", per_model=True, needed=True),
        Option("nuslerp_flatten", True, "take each tensor as one vector", kind="bool"),
        Option("nuslerp_row_wise", False, "without flatten: vectors are columns, not rows", kind="bool"),
    ),
    _stages,
    base="optional",
    min_models=2,
    max_models=2,
    whole=_columns,
)

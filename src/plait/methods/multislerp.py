"""multislerp (Goddard, mergekit): the normalised weighted mean of directions, at the mean length.

u_i = x_i / ‖x_i‖, m = Σ w_i u_i;  θ = (Σ w_i ‖x_i‖) · m / ‖m‖, weights normalised to 1; x_i are task vectors
where there is a base. The tangent step of the original vanishes identically, so it is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plait.errors import InputError
from plait.methods._gram import combination, gram_stage, norms
from plait.methods._spec import Cell, Method, Numbers, Option, Settings
from plait.numerics import Value


def _vectors(c: Cell) -> Sequence[Value]:
    return c.models if c.base is None else c.delta


def _coefficients(gram: Numbers, settings: Settings) -> Sequence[Numbers]:
    w = np.asarray(settings.per_model["weight"], dtype=np.float64)
    if settings.models == 1:
        return [np.asarray(1.0)]
    w = w / w.sum() if settings.shared["normalize_weights"] else w
    n = norms(gram)
    c = w / (n + settings.shared["eps"])
    length = np.sqrt(max(float(c @ gram @ c), 0.0))
    # Directions that cancel leave what the rounding of the sums leaves, and no direction.
    if length < max(settings.shared["eps"], 1e-7 * float(np.abs(c) @ n)):
        if not n.any() or settings.models == 2:
            return [np.asarray(v) for v in w]
        raise InputError(
            "multislerp is undefined: the weighted directions cancel",
            hint="change the weights or exclude the tensor",
        )
    return [np.asarray(v) for v in c * float(w @ n) / length]


def _combine(c: Cell) -> Value:
    merged = combination(c, _vectors(c))
    return merged if c.base is None else c.base + merged


METHOD = Method(
    "multislerp",
    "barycentric spherical interpolation of several models",
    "goddard.blog/posts/multislerp-wow-what-a-cool-idea",
    _combine,
    (
        Option("weight", 1.0, "the model's weight", per_model=True, needed=True),
        Option("normalize_weights", True, "divide weights by their sum", kind="bool"),
        Option("eps", 1e-8, "guards divisions", low=0.0),
    ),
    lambda settings: [gram_stage(_vectors, _coefficients)],
    base="optional",
)

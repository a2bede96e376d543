"""Karcher mean (Riemannian centre of mass on the sphere; Karcher 1977, arXiv:2603.04972), per tensor.

u_i = x_i / ‖x_i‖; μ ← exp_μ(Σ α_i log_μ u_i) until the step is below `tol`;  θ = (Σ ‖x_i‖ / T) · μ.
Zero tensors count in the length, not in the direction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plait.methods._gram import combination, gram_stage, norms
from plait.methods._spec import Cell, Method, Numbers, Option, Settings
from plait.numerics import Value


def _vectors(c: Cell) -> Sequence[Value]:
    return c.models


def _coefficients(gram: Numbers, settings: Settings) -> Sequence[Numbers]:
    n, tol = norms(gram), settings.shared["tol"]
    live = n > tol
    if not live.any():
        return [np.asarray(0.0)] * len(n)
    scale = np.where(live, 1.0 / np.where(live, n, 1.0), 0.0)
    unit = gram * np.outer(scale, scale)
    mean = _iterate(unit, live / live.sum(), int(settings.shared["max_iter"]), tol)
    return [np.asarray(v) for v in mean * scale * n.sum() / len(n)]


def _iterate(unit: Numbers, alpha: Numbers, steps: int, tol: float) -> Numbers:
    """Coefficients over the unit vectors of the mean; `unit` holds their inner products."""
    first = np.zeros(len(alpha))
    first[int(np.argmax(alpha > 0))] = 1.0
    mean = _unit_length(alpha, unit, tol, first)
    for _ in range(steps):
        cos = np.clip(unit @ mean, -1.0, 1.0)
        angle = np.arccos(cos)
        # At an antipode every direction is shortest: it pulls nowhere.
        pull = (angle >= tol) & (np.sin(angle) > 1e-12) & (alpha > 0)
        factor = np.where(pull, alpha * angle / np.where(pull, np.sin(angle), 1.0), 0.0)
        tangent = factor - float(factor @ cos) * mean
        length = float(np.sqrt(max(tangent @ unit @ tangent, 0.0)))
        if length < tol:
            break
        mean = _unit_length(np.cos(length) * mean + np.sin(length) / length * tangent, unit, tol, first)
    return mean


def _unit_length(c: Numbers, unit: Numbers, tol: float, otherwise: Numbers) -> Numbers:
    length = float(np.sqrt(max(c @ unit @ c, 0.0)))
    return otherwise if length < tol else c / length


METHOD = Method(
    "karcher",
    "mean of directions on the sphere, at the mean length",
    "arXiv:2603.04972",
    lambda c: combination(c, c.models),
    (
        Option("max_iter", 10, "most steps", kind="int", low=1),
        Option("tol", 1e-5, "smallest step, and smallest length that has a direction", low=0.0),
    ),
    lambda settings: [gram_stage(_vectors, _coefficients)],
)

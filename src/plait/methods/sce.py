"""SCE (Wan et al., FuseChat, 2024, arXiv:2408.07990), per tensor.

Select     M = the top int(select_topk · #nonzero) entries by variance of δ_t across models
Calculate  w_t = mean((M ⊙ δ_t)²) / Σ
Erase      keep entries with the sign of Σ_t δ_t (≥ 0 counts as plus)
Fuse       θ = θ₀ + Σ w_t δ_t kept / Σ w_t kept

`masked` fuses M ⊙ δ_t (the paper's text, mergekit); without it M serves the weights alone (authors' code).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from plait.methods._consensus import total
from plait.methods._sparsify import among_largest
from plait.methods._spec import Cell, Method, Numbers, Option, Order, Settings, Stage, Sums
from plait.numerics import Value, where


def _variance(c: Cell) -> Value:
    count = float(len(c.delta))
    mean = total(c.delta) / count
    return total([(d - mean) * (d - mean) for d in c.delta]) / count


def _selected(c: Cell) -> list[Value]:
    if not c.has("variance"):
        return list(c.delta)
    chosen = among_largest(c, "variance", 0, _variance(c))
    return [where(chosen, d, 0.0) for d in c.delta]


def _ranks(count: int, nonzero: Sequence[Numbers], settings: Settings) -> list[list[Any]]:
    return [[np.floor(settings.shared["select_topk"] * nonzero[0]).astype(np.int64)]]


def _weights(sums: Sequence[Numbers], settings: Settings) -> dict[str, Sequence[Numbers]]:
    energy = np.asarray([float(s) for s in sums]) / max(settings.numel, 1)
    whole = energy.sum()
    if whole == 0 or whole < settings.shared["uniform_below"]:
        energy, whole = np.ones(len(energy)), float(len(energy))
    return {"weight": [np.asarray(v) for v in energy / whole]}


def _stages(settings: Settings) -> list[Stage]:
    energy = Sums("energy", lambda c: [d * d for d in _selected(c)], _weights)
    if settings.shared["select_topk"] >= 1.0:
        return [energy]
    return [Order("variance", lambda c: [_variance(c)], _ranks, exact=True), energy]


def _combine(c: Cell) -> Value:
    deltas = _selected(c) if c.option("masked") else list(c.delta)
    positive = total(deltas) >= 0.0
    agree = [(positive & (d > 0.0)) | (~positive & (d < 0.0)) for d in deltas]
    weights = c.stat("weight")
    kept = [where(a, w, 0.0) for a, w in zip(agree, weights, strict=True)]
    divisor = total(kept)
    merged = total([k * d for k, d in zip(kept, deltas, strict=True)])
    least = c.option("least_weight")
    # No weight at all has nothing to divide.
    divisor = where(divisor < least, least, divisor)
    return c.base + merged / where(divisor == 0.0, 1.0, divisor)


METHOD = Method(
    "sce",
    "select by variance, weigh by energy, erase minority signs",
    "arXiv:2408.07990",
    _combine,
    (
        Option("select_topk", 1.0, "fraction of the varying entries selected", low=0.0, high=1.0),
        Option("masked", True, "fuse the selected entries alone", kind="bool"),
        Option("least_weight", 0.0, "Σ of kept weights counts as at least this much", mergekit=1e-6, low=0.0),
        Option("uniform_below", 0.0, "equal weights if Σ mean(δ²) is below", mergekit=1e-6, low=0.0),
    ),
    _stages,
    base="required",
)

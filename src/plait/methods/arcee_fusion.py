"""Arcee Fusion (Arcee, mergekit): take from the model p, into the base q, what matters most.

I = |p − q| ⊙ KL(softmax(p) ‖ softmax(q)), softmax over rows
τ = median + 1.5·(Q₃ − Q₁) of I over the tensor, quantiles of all entries (mergekit samples a million)
θ = q + (p − q)·1[I ≥ τ]
"""

from __future__ import annotations

import torch
from torch import Tensor

from plait.methods._spec import Cell, Method


def _importance(p: Tensor, q: Tensor) -> Tensor:
    a, b = (torch.softmax(x, -1) + 1e-8 for x in (p, q))
    divergence = (a * (a / b).log()).sum(-1, keepdim=True)
    return (p - q).abs() * divergence


def _threshold(importance: Tensor) -> Tensor:
    flat = importance.flatten().sort().values
    q1, median, q3 = (flat[int(f * (flat.numel() - 1))] for f in (0.25, 0.5, 0.75))
    return median + 1.5 * (q3 - q1)


def _combine(c: Cell) -> Tensor:
    q, p = c.base, c.models[0]
    if p.numel() == 0:
        return q
    importance = _importance(p, q)
    return torch.where(importance >= _threshold(importance), p, q)


METHOD = Method(
    "arcee_fusion",
    "take the most important differences of one model into the base",
    "mergekit",
    _combine,
    base="required",
    max_models=1,
    whole=lambda settings: True,
)

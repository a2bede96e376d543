"""How many of the active requests each model gets, and how much its clients' updates differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def dealt(total: int, weights: Sequence[float], unit: int = 1, least: int = 0) -> list[int]:
    """A number in shares: whole units, as near to the weights as can be, that sum up to it.

    Args:
        total: what is dealt.
        weights: not below 0; equal shares if all are 0.
        unit: shares are its multiples; what is left of the total goes to the largest weight.
        least: units that each gets in any case; there are as many.
    """
    parts = np.asarray(weights, dtype=np.float64)
    parts = parts / parts.sum() if parts.sum() > 0 else np.full(len(parts), 1 / len(parts))
    units, given = total // unit, np.full(len(parts), least)
    for _ in range(units - int(given.sum())):
        given[int(np.argmax(parts * units - given))] += 1
    shares = given * unit
    shares[int(np.argmax(parts))] += total % unit
    return shares.tolist()


def update_variance(deltas: Sequence[Tensor], lr: float, server_lr: float, steps: int) -> float | None:
    """How much clients' updates differ: v = ηₗ η_g · mean‖Δᵢ − Δ̄‖² / (‖Δ̄‖² (ηₗ τ)²); FedAST's estimate.

    Args:
        deltas: the last of one model.
        lr: ηₗ.
        server_lr: η_g.
        steps: τ.

    Returns:
        v; None if nothing moves on average.
    """
    stacked = torch.stack(list(deltas)).double()
    mean = stacked.mean(0)
    norm = float(mean.square().sum())
    if norm == 0:
        return None
    spread = float((stacked - mean).square().sum(1).mean())
    return lr * server_lr * spread / (norm * (lr * steps) ** 2)

"""Checkpoint averages along a training run (Li et al., NeurIPS 2025, arXiv:2505.12082), first to last.

sma  w_i = 1/N
wma  w_i = i / Σj
ema  M₁ = θ₁, M_i = αθ_i + (1 − α)M_{i−1}
"""

from __future__ import annotations

from plait.methods._consensus import total
from plait.methods._spec import Cell, Method, Option
from plait.numerics import Value

_PAPER = "arXiv:2505.12082"


def _sma(c: Cell) -> Value:
    return total(c.models) / float(len(c.models))


def _wma(c: Cell) -> Value:
    n = len(c.models)
    return total([float(i) * x for i, x in enumerate(c.models, 1)]) / float(n * (n + 1) // 2)


def _ema(c: Cell) -> Value:
    alpha = c.option("alpha")
    merged = c.models[0]
    for x in c.models[1:]:
        merged = alpha * x + (1.0 - alpha) * merged
    return merged


METHODS = (
    Method("sma", "uniform average of a run's checkpoints", _PAPER, _sma),
    Method("wma", "average of a run's checkpoints, later ones heavier", _PAPER, _wma, symmetric=False),
    Method(
        "ema",
        "exponential moving average of a run's checkpoints",
        _PAPER,
        _ema,
        (Option("alpha", 0.2, "weight of the newer checkpoint", low=0.0, high=1.0),),
        symmetric=False,
    ),
)

"""Weighted averages: linear, and the uniform soup (Wortsman et al., ICML 2022, arXiv:2203.05482).

θ = Σ_t w_t θ_t, divided by Σ_t w_t where `normalize` is on.
"""

from __future__ import annotations

from plait.methods._consensus import total
from plait.methods._spec import Cell, Method, Option, Settings
from plait.numerics import Value


def _linear(c: Cell) -> Value:
    weights = c.each("weight")
    merged = total([w * x for w, x in zip(weights, c.models, strict=True)])
    return merged / total(weights) if c.option("normalize") else merged


def _cancels(settings: Settings) -> str | None:
    if settings.shared["normalize"] and abs(sum(settings.per_model["weight"])) < 1e-12:
        return "the weights add up to zero, so they cannot be normalised"
    return None


def _soup(c: Cell) -> Value:
    return total(c.models) / float(len(c.models))


METHODS = (
    Method(
        "linear",
        "weighted average of the models",
        "arXiv:2203.05482",
        _linear,
        (
            Option("weight", 1.0, "the model's weight; may be negative", per_model=True, needed=True),
            Option("normalize", True, "divide by the sum of the weights", kind="bool"),
        ),
        check=_cancels,
    ),
    Method("model_soup", "uniform average of the models", "arXiv:2203.05482", _soup),
)

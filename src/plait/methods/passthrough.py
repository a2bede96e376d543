"""passthrough: one model's tensors as they are, times `scale`; with slices it stacks layers."""

from __future__ import annotations

from plait.methods._spec import Cell, Method, Option
from plait.numerics import Value


def _passthrough(c: Cell) -> Value:
    return c.each("scale")[0] * c.models[0]


METHOD = Method(
    "passthrough",
    "one model's tensors as they are (layer stacking)",
    "mergekit",
    _passthrough,
    (Option("scale", 1.0, "factor", per_model=True),),
    max_models=1,
)

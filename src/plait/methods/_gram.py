"""Geometry from inner products alone: what a rule needs of whole vectors is in their Gram matrix.

Directions that are sums Σ c_i x_i (geodesics, means on the sphere) have coefficients that depend on the
vectors only through G_ij = ⟨x_i, x_j⟩, so one streamed pass is enough, at any size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from plait.methods._consensus import total
from plait.methods._spec import Cell, Numbers, Scope, Settings, Sums
from plait.numerics import Value

#: Gram matrices `(..., T, T)`, settings → coefficients, each `(...)`.
Coefficients = Callable[[Numbers, Settings], Sequence[Numbers]]


def gram_stage(
    vectors: Callable[[Cell], Sequence[Value]], coefficients: Coefficients, scope: Scope = "tensor"
) -> Sums:
    """The stage that gives `Cell.stat("coefficient")`."""

    def rule(c: Cell) -> list[Value]:
        xs = vectors(c)
        return [xs[i] * xs[j] for i in range(len(xs)) for j in range(i + 1)]

    def finish(sums: Sequence[Numbers], settings: Settings) -> dict[str, Sequence[Numbers]]:
        size = int((np.sqrt(8 * len(sums) + 1) - 1) / 2)
        gram = np.empty((*np.shape(sums[0]), size, size))
        rows, columns = np.tril_indices(size)
        for found, i, j in zip(sums, rows, columns, strict=True):
            gram[..., i, j] = gram[..., j, i] = found
        return {"coefficient": coefficients(gram, settings)}

    # An angle near 0 or π is lost in products that are rounded to float32.
    return Sums("gram", rule, finish, scope, double=True)


def combination(c: Cell, vectors: Sequence[Value]) -> Value:
    """Σ coefficient_i · x_i."""
    return total([k * x for k, x in zip(c.stat("coefficient"), vectors, strict=True)])


def norms(gram: Numbers) -> Numbers:
    """‖x_i‖, `(..., T)`."""
    return np.sqrt(np.maximum(np.diagonal(gram, axis1=-2, axis2=-1), 0.0))


def divide(a: Numbers, b: Numbers) -> Numbers:
    """a / b, 0 where b is 0."""
    zero = b == 0
    return np.where(zero, 0.0, a / np.where(zero, 1.0, b))

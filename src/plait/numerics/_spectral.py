"""Leading singular triplets and polar factors, with directions that only rounding made left out.

A singular value of zero has singular vectors that a library chooses as it likes. They are left out here, so
that a product of these factors is a function of the matrix: the same whatever the library, up to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EPS = torch.finfo(torch.float64).eps


def leading_triplets(matrix: Tensor, rank: int, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The largest singular values with their vectors, `matrix ≈ U diag(s) Vᵀ`.

    Args:
        matrix: `(rows, cols)` float64.
        rank: how many, at most.
        scale: the size of what the matrix was computed from; a singular value that is no larger than its
            rounding counts as zero.

    Returns:
        U `(rows, k)`, s `(k,)` descending and V `(cols, k)`, without zeros, so k may be below `rank`.
    """
    if matrix.shape[0] < matrix.shape[1]:  # a third of the time: libraries are made for tall matrices
        v, s, u = leading_triplets(matrix.T, rank, scale)
        return u, s, v
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    k = min(rank, int((s > max(matrix.shape) * _EPS * scale).sum()))
    return u[:, :k].clone(), s[:k].clone(), vh[:k].T.clone()


def polar(columns: Tensor) -> Tensor:
    """The nearest matrix with orthonormal columns, `X (XᵀX)^(-1/2)`.

    Columns that depend on others (a singular value below about 1e-7 of the largest) give a partial isometry:
    its columns span what X's span, and nothing is made up for the rest.

    Args:
        columns: X, `(rows, k)` float64 with k ≤ rows.
    """
    values, vectors = torch.linalg.eigh(columns.T @ columns)
    kept = values > max(columns.shape) * _EPS * values[-1:]
    scaled = vectors * torch.where(kept, values, 1.0).rsqrt() * kept
    return columns @ (scaled @ vectors.T)

"""Leading singular triplets and polar factors, with directions that only rounding made left out.

A singular value of zero has singular vectors that a library chooses as it likes. They are left out here, so
that a product of these factors is a function of the matrix: the same whatever the library, up to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

Triplets = tuple[Tensor, Tensor, Tensor]
_EPS = torch.finfo(torch.float64).eps
#: Squared part of the largest singular value from which on squares are exact enough.
_SQUARED = 1e-6


def leading_triplets(matrix: Tensor, rank: int, scale: Tensor) -> Triplets:
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
    u, s, v = _from_squares(matrix, rank) or _whole(matrix, rank)
    k = int((s > max(matrix.shape) * _EPS * scale).sum())
    return u[:, :k], s[:k], v[:, :k]


def _whole(matrix: Tensor, rank: int) -> Triplets:
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank].clone(), s[:rank].clone(), vh[:rank].T.clone()


def _from_squares(matrix: Tensor, rank: int) -> Triplets | None:
    """The eigenvectors of AᵀA, where that is exact enough: it takes less than half of the time.

    Squaring loses what is below 1e-8 of the largest singular value; here vectors are orthonormal to 1e-10.
    """
    if not 0 < 2 * rank <= matrix.shape[1]:
        return None
    values, vectors = torch.linalg.eigh(matrix.T @ matrix)
    if not bool(values[-rank] > _SQUARED * values[-1]):
        return None
    v = vectors[:, -rank:].flip(1)
    u = matrix @ v
    s = torch.linalg.norm(u, dim=0)
    return u.div_(s), s, v


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

"""The best low-rank approximation of a matrix, with its signs fixed.

Eckart, Young 1936: the truncated singular value decomposition; its error is the norm of the singular
values left out. Halko, Martinsson, Tropp 2011 (algorithms 4.4 and 5.1): the same from a random sketch
and a few power iterations, for large matrices of which a small part is wanted.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: From this smaller side on, a rank of at most an eighth of it is found from a sketch.
_LARGE = 1024
_OVERSAMPLING = 32
_POWER_ITERATIONS = 6


def low_rank(matrix: Tensor, rank: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Factors of the best approximation of `matrix` of a rank, `matrix ≈ B @ A`.

    Each singular value is shared evenly by both factors, and the largest entry of each column of B is
    positive. The bits depend on the number of BLAS threads; set it to one where that matters.

    Args:
        matrix: `(rows, columns)`, floating point; computed in float64 if it is that, else in float32.
        rank: at least 1; more than `min(rows, columns)` is that.
        seed: of the sketch, where one is used.

    Returns:
        A `(rank, columns)` and B `(rows, rank)` in the type computed in.

    Raises:
        ValueError: `matrix` is no matrix, or `rank` is below 1.
    """
    if matrix.dim() != 2 or rank < 1:
        raise ValueError(f"a matrix and a rank of at least 1, not {tuple(matrix.shape)} and {rank}")
    work = matrix.to(torch.float64 if matrix.dtype == torch.float64 else torch.float32)
    rank = min(rank, *work.shape)
    smaller = min(work.shape)
    if smaller == 0:
        return work.new_zeros(rank, work.shape[1]), work.new_zeros(work.shape[0], rank)
    sketched = smaller >= _LARGE and rank * 8 <= smaller
    u, s, vh = _sketched(work, rank, seed) if sketched else torch.linalg.svd(work, full_matrices=False)
    u, root, vh = u[:, :rank], s[:rank].sqrt(), vh[:rank]
    largest = u.gather(0, u.abs().argmax(0, keepdim=True))
    signs = torch.where(largest < 0, -1.0, 1.0).to(work.dtype)
    return (root * signs[0])[:, None] * vh, u * signs * root


def _sketched(matrix: Tensor, rank: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """The leading singular triplets: the matrix on the range that random vectors find in it."""
    width = min(rank + _OVERSAMPLING, *matrix.shape)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(matrix.shape[1], width, dtype=matrix.dtype, generator=generator).to(matrix.device)
    basis, _ = torch.linalg.qr(matrix @ start)
    for _ in range(_POWER_ITERATIONS):
        back, _ = torch.linalg.qr(matrix.T @ basis)
        basis, _ = torch.linalg.qr(matrix @ back)
    u, s, vh = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    return basis @ u, s, vh

"""Products of low-rank factors, whose bits do not depend on which rows are asked for.

A BLAS adds the same products in another order when the number of rows or threads changes. Here each
element is `sum over k of left[i, k] * right[k, j]` with k ascending and without fused multiply-add, so
one element has one value on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor


@cache
def _kernels() -> tuple[Callable[..., None], Callable[..., None]]:
    from numba import njit

    @njit(nogil=True, error_model="numpy")
    def accumulate(left: Any, right: Any, out: Any) -> None:
        tile = 2048  # columns of `out` that stay in the first-level cache while k runs
        for first in range(0, out.shape[1], tile):
            last = min(first + tile, out.shape[1])
            for i in range(out.shape[0]):
                total = out[i, first:last]
                for k in range(right.shape[0]):
                    factor, row = left[i, k], right[k, first:last]
                    for j in range(total.shape[0]):
                        total[j] += factor * row[j]

    @njit(nogil=True, error_model="numpy")
    def squares(block: Any, by_row: Any, by_column: Any) -> None:
        for i in range(block.shape[0]):
            total = by_row[i]
            for j in range(block.shape[1]):
                square = np.float64(block[i, j]) * np.float64(block[i, j])
                total += square
                by_column[j] += square
            by_row[i] = total

    return accumulate, squares


def low_rank_product(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right`, added up in one fixed order.

    Args:
        left: `(rows, rank)`, float32 or float64, on the CPU.
        right: `(rank, columns)`, of the same dtype.

    Returns:
        `(rows, columns)` in the same dtype; any of its rows is bit for bit the same alone.
    """
    if left.dtype != right.dtype or left.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"factors must both be float32 or float64, not {left.dtype} and {right.dtype}")
    out = torch.zeros(left.shape[0], right.shape[1], dtype=left.dtype)
    accumulate, _ = _kernels()
    accumulate(left.contiguous().numpy(), right.contiguous().numpy(), out.numpy())
    return out


def add_squares(block: Tensor, by_row: Tensor, by_column: Tensor) -> None:
    """Add the squares of a block to the sums of its rows and of its columns, in row-major order.

    Args:
        block: `(rows, columns)`, float32 or float64, on the CPU.
        by_row: `(rows,)` float64, changed in place.
        by_column: `(columns,)` float64, changed in place.
    """
    _, squares = _kernels()
    squares(block.contiguous().numpy(), by_row.numpy(), by_column.numpy())

"""Whole embeddings rearranged by an alignment: what the engine does block by block, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from plait.recipe._alignment import Alignment

if TYPE_CHECKING:  # reading a recipe takes no torch
    import torch
    from torch import Tensor

_CHUNK = 4096


def align_tables(alignment: Alignment, tables: Sequence[Tensor]) -> list[Tensor]:
    """Every model's embedding with the output's rows.

    Args:
        alignment: which row goes where.
        tables: per model `(its rows, ...)`, the vocabulary on the first axis, equal shapes after it.

    Returns:
        Per model `(alignment.rows, ...)`, in the type that all tables promote to. Means are taken in
        float64 and rounded once.
    """
    import torch

    dtype = tables[0].dtype
    for table in tables[1:]:
        dtype = torch.promote_types(dtype, table.dtype)
    fallbacks = {row: _mean(rows, tables) for row, rows in alignment.fallbacks.items()}
    return [_aligned(alignment, index, table, fallbacks, dtype) for index, table in enumerate(tables)]


def _mean(rows: Sequence[tuple[int, int]], tables: Sequence[Tensor]) -> Tensor:
    import torch

    if not rows:
        return torch.zeros(tables[0].shape[1:], dtype=torch.float64)
    return torch.stack([tables[model][row].double() for model, row in rows]).mean(dim=0)


def _aligned(
    alignment: Alignment, index: int, table: Tensor, fallbacks: dict[int, Tensor], dtype: torch.dtype
) -> Tensor:
    import torch

    permutation = torch.from_numpy(alignment.permutations[index])
    out = table.to(dtype)[permutation.clamp(min=0)]
    for row, value in fallbacks.items():
        if permutation[row] < 0:
            out[row] = value.to(dtype)
    if len(alignment.padding):
        padding = torch.from_numpy(alignment.padding)
        out[padding] = 0
        count = alignment.rows - len(padding)
        total = torch.zeros(out.shape[1:], dtype=torch.float64)
        for start in range(0, alignment.rows, _CHUNK):  # in this order, whatever the number of threads
            total += out[start : start + _CHUNK].double().sum(dim=0)
        out[padding] = (total / max(count, 1)).to(dtype)
    return out

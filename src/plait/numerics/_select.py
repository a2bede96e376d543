"""Exact order statistics of a stream: histograms of the leading bits, refined inside the bins that matter.

The bits of a non-negative float order like its value. Each level counts 16 more of them, in the bin found
by the level before, so float32 takes two passes and float64 four, whatever ties or zeros there are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BINS = 1 << 16
Counts = NDArray[np.int64]


def bit_levels(dtype: torch.dtype) -> int:
    """How many passes a type takes."""
    return dtype.itemsize // 2


def keys(magnitudes: Tensor) -> NDArray[np.uint64]:
    """The magnitudes' bits, as integers of the same order."""
    flat = magnitudes.detach().cpu().contiguous().reshape(-1)
    view = flat.numpy().view(np.uint32 if flat.dtype == torch.float32 else np.uint64)
    return view.astype(np.uint64, copy=False)


def level_counts(found: NDArray[np.uint64], level: int, levels: int, prefix: int) -> Counts:
    """How many keys that begin with `prefix` (16·level bits) have each value of the next 16 bits."""
    shift = 16 * (levels - 1 - level)
    if level:
        found = found[(found >> np.uint64(shift + 16)) == np.uint64(prefix)]
    digits = (found >> np.uint64(shift)) & np.uint64(BINS - 1)
    return np.bincount(digits.astype(np.int64), minlength=BINS)


class Search:
    """The k-th largest of a stream, level by level.

    Attributes:
        prefix: leading bits of the answer, as far as they are known.
        rank: which of the elements with this prefix it is, counted from the largest, from 1.
    """

    def __init__(self, rank: int) -> None:
        self.prefix, self.rank = 0, rank

    def refine(self, counts: Counts) -> None:
        """Take the counts of the next 16 bits."""
        above = np.cumsum(counts[::-1])
        place = int(np.searchsorted(above, self.rank))
        if place:
            self.rank -= int(above[place - 1])
        self.prefix = (self.prefix << 16) | (BINS - 1 - place)

    def value(self, levels: int) -> float:
        """The answer, when all levels are done."""
        kind, unsigned = (np.float32, np.uint32) if levels == 2 else (np.float64, np.uint64)
        return float(np.asarray([self.prefix], dtype=unsigned).view(kind)[0])


def row_order(
    magnitudes: Tensor, ranks: Sequence[NDArray[np.int64]], exact: bool
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Order statistics within rows.

    Args:
        magnitudes: `(rows, cols)`, non-negative.
        ranks: for each statistic, k per row, `(rows,)` or a number.
        exact: cut ties by the lowest index.

    Returns:
        For each statistic the k-th largest of each row and the cut among its equals.
    """
    rows, cols = magnitudes.shape
    ordered, index = magnitudes.sort(dim=-1, descending=True, stable=True)
    found = []
    for wanted in ranks:
        k = torch.from_numpy(np.broadcast_to(np.asarray(wanted, dtype=np.int64), (rows,)).copy())
        place = (k.clamp(1, max(cols, 1)) - 1)[:, None].to(magnitudes.device)
        none = (k <= 0).numpy()
        value = ordered.gather(1, place)[:, 0].double().cpu().numpy() if cols else np.zeros(rows)
        cut = index.gather(1, place)[:, 0].double().cpu().numpy() + 1 if cols else np.zeros(rows)
        cut = cut if exact else np.full(rows, float(cols))
        found.append((np.where(none, np.inf, value), np.where(none, 0.0, cut)))
    return found


def row_ranks(magnitudes: Tensor) -> Tensor:
    """Each element's place in its row, ascending from 0 to 1, ties by index; 0.5 in a row of one."""
    cols = magnitudes.shape[-1]
    if cols <= 1:
        return torch.full_like(magnitudes, 0.5)
    order = magnitudes.argsort(dim=-1, stable=True)
    places = torch.empty_like(order).scatter_(
        1, order, torch.arange(cols, device=order.device).expand_as(order)
    )
    return places.to(magnitudes.dtype) / (cols - 1)

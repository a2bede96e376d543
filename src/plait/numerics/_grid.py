"""The fixed grid of chunks on which every result depends, and nothing else does.

Blocks, threads and memory budgets move freely; a chunk never changes. Reductions add up inside a chunk
first and then over chunks in order, so that their bits depend on the grid alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

CHUNK = 65_536
#: A tensor of one row longer than this is cut, unless its row is needed whole.
LONGEST_ROW = 1 << 22


@dataclass(frozen=True)
class Grid:
    """How a tensor is cut.

    Attributes:
        rows: number of rows (row = last axis; a vector is one row).
        cols: length of a row.
        step: elements of a chunk: whole rows, unless a row is too long.
        whole_rows: chunks hold whole rows.
    """

    rows: int
    cols: int
    step: int
    whole_rows: bool

    @property
    def numel(self) -> int:
        return self.rows * self.cols

    def chunks(self) -> Iterator[tuple[int, int]]:
        """`(start, stop)` of each chunk, in elements."""
        for start in range(0, self.numel, self.step):
            yield start, min(start + self.step, self.numel)

    def blocks(self, limit: int) -> Iterator[tuple[int, int]]:
        """Runs of whole chunks of at most `limit` elements (at least one chunk)."""
        size = max(limit // self.step, 1) * self.step
        for start in range(0, self.numel, size):
            yield start, min(start + size, self.numel)


def grid(shape: tuple[int, ...], *, by_row: bool = False) -> Grid:
    """The grid of a tensor of this shape; scalars and empty tensors included.

    Args:
        shape: the tensor's shape; a vector is one row.
        by_row: rows are needed whole, however long.
    """
    total = math.prod(shape)
    cols = shape[-1] if shape else 1
    if len(shape) < 2 or cols == 0:
        cols = total
    rows = total // cols if cols else 0
    if rows <= 1 and cols > LONGEST_ROW and not by_row:
        return Grid(rows, cols, CHUNK, False)
    return Grid(rows, cols, max(CHUNK // max(cols, 1), 1) * max(cols, 1), True)

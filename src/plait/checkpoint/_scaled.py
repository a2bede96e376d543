"""A tensor stored in a narrow type with a scale per tensor, row or block."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from plait.checkpoint._tensor import LazyTensor, ReadFlat, Shape


def block_shape(shape: Shape, scale: Shape, block: tuple[int, ...]) -> Shape | None:
    """How many elements along each axis share a scale; None where the shapes do not fit.

    Args:
        shape: the tensor's.
        scale: the scale's: one element, one per row `(rows,)` or `(rows, 1)`, or one per block.
        block: rows and columns of a block, for the last two axes.
    """
    if all(size == 1 for size in scale):
        return shape
    if len(scale) == 1 and len(shape) > 1:
        scale = (*scale, *(1 for _ in shape[1:]))
    if len(scale) != len(shape) or len(block) != 2 or not all(isinstance(b, int) and b > 0 for b in block):
        return None
    found: list[int] = []
    for axis, (size, count) in enumerate(zip(shape, scale, strict=True)):
        sides = [1 if count == size else 0, size if count == 1 else 0]
        if axis >= len(shape) - 2:
            side = block[axis - len(shape)]
            sides.append(side if -(-size // side) == count else 0)
        if not any(sides):
            return None
        found.append(next(side for side in sides if side))
    return tuple(found)


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class ScaledTensor(ReadFlat):
    """A `LazyTensor` whose elements are a stored element times its block's scale, in float32, rounded once.

    Attributes:
        name: its name.
        source: the stored elements.
        scale: the scales.
        blocks: elements per scale along each axis.
        dtype: the type of the result.
    """

    name: str
    source: LazyTensor
    scale: LazyTensor
    blocks: Shape
    dtype: torch.dtype

    @property
    def shape(self) -> Shape:
        return self.source.shape

    @property
    def nbytes(self) -> int:
        return self.source.nbytes + self.scale.nbytes

    def read_flat(self, start: int, stop: int) -> Tensor:
        if start == stop:
            return torch.empty(0, dtype=self.dtype)
        width = self.shape[-1] if self.shape else 1
        first, last = start // width, -(-stop // width)
        rows = self.source.read_rows(first, last).float()
        rows *= self._row_scales(first, last, width)
        return rows.reshape(-1)[start - first * width : stop - first * width].to(self.dtype)

    def read_into(self, out: Tensor, start: int) -> None:
        """Fill `out` (1-D, CPU, of this dtype) with the elements from `start` on."""
        out.copy_(self.read_flat(start, start + len(out)))

    def _row_scales(self, first: int, last: int, width: int) -> Tensor:
        """The scale of each element of rows `first:last`, `(last - first, width)` or fewer columns."""
        scale = _scales(self.scale)
        if scale.numel() == 1:
            return scale.reshape(1, 1)
        scale = scale.reshape(*scale.shape, *(1 for _ in range(len(self.shape) - scale.dim())))
        index = torch.arange(first, last)
        at: list[Tensor] = []
        for size, block in zip(reversed(self.shape[:-1]), reversed(self.blocks[:-1]), strict=True):
            at.insert(0, index % size // block)
            index = index // size
        columns = torch.arange(width) // self.blocks[-1] if self.blocks else torch.zeros(1, dtype=torch.int64)
        return scale[tuple(at)][:, columns] if at else scale[columns].reshape(1, -1)


@lru_cache(maxsize=64)  # scales are thousands of times smaller than what they scale
def _scales(scale: LazyTensor) -> Tensor:
    return scale.read().float()

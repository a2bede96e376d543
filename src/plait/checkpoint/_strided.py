"""A tensor whose elements lie in another order than its shape says (a saved transpose or view)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from plait.checkpoint._safetensors import FileTensor
from plait.checkpoint._tensor import ReadFlat, Shape


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class StridedTensor(ReadFlat):
    """A `LazyTensor` over the span of a file that holds its elements; every read takes the whole span.

    An expanded tensor has more elements than its span: no more of them exist than are asked for.

    Attributes:
        name: its name.
        shape: its shape.
        strides: elements of the span between neighbours along each axis.
        span: the span, 1-D, beginning with the tensor's first element.
    """

    name: str
    shape: Shape
    strides: Shape
    span: FileTensor

    @property
    def dtype(self) -> torch.dtype:
        return self.span.dtype

    @property
    def nbytes(self) -> int:
        return self.span.nbytes

    def read_flat(self, start: int, stop: int) -> Tensor:
        whole = self.span.read_flat(0, self.span.shape[0])
        return torch.cat(list(_pieces(whole.as_strided(self.shape, self.strides), start, stop)))

    def read_into(self, out: Tensor, start: int) -> None:
        """Fill `out` (1-D, CPU, of this dtype) with the elements from `start` on."""
        out.copy_(self.read_flat(start, start + len(out)))


def _pieces(tensor: Tensor, start: int, stop: int) -> Iterator[Tensor]:
    """Elements `start:stop` in row-major order, 1-D: whole rows of the first axis, and parts of two."""
    if tensor.dim() < 2:
        yield tensor.reshape(-1)[start:stop]
        return
    row = max(tensor[0].numel() if len(tensor) else 0, 1)
    first, last = -(-start // row), stop // row
    if first > last:  # within one row
        yield from _pieces(tensor[last], start - last * row, stop - last * row)
        return
    if start < first * row:
        yield from _pieces(tensor[first - 1], start - (first - 1) * row, row)
    yield tensor[first:last].reshape(-1)
    if last * row < stop:
        yield from _pieces(tensor[last], 0, stop - last * row)

"""A tensor whose elements lie in another order than its shape says (a saved transpose or view)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from plait.checkpoint._safetensors import FileTensor
from plait.checkpoint._tensor import ReadFlat, Shape


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class StridedTensor(ReadFlat):
    """A `LazyTensor` over the span of a file that holds its elements; every read takes the whole span.

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
        return whole.as_strided(self.shape, self.strides).reshape(-1)[start:stop].clone()

    def read_into(self, out: Tensor, start: int) -> None:
        """Fill `out` (1-D, CPU, of this dtype) with the elements from `start` on."""
        out.copy_(self.read_flat(start, start + len(out)))

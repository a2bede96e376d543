"""A tensor that lies in memory already."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from plait.checkpoint._tensor import ReadFlat, Shape


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class MemoryTensor(ReadFlat):
    """A `LazyTensor` over a tensor in memory, on any device; it sees later changes of that tensor.

    Attributes:
        name: its name.
        source: the tensor.
        shape: its shape.
        dtype: its type.
    """

    name: str
    source: Tensor
    shape: Shape = field(init=False)
    dtype: torch.dtype = field(init=False)

    def __post_init__(self) -> None:  # asked for often, and slow to ask a tensor for
        object.__setattr__(self, "shape", tuple(self.source.shape))
        object.__setattr__(self, "dtype", self.source.dtype)

    @property
    def nbytes(self) -> int:
        return self.source.numel() * self.source.dtype.itemsize

    def read_flat(self, start: int, stop: int) -> Tensor:
        out = torch.empty(stop - start, dtype=self.dtype)
        self.read_into(out, start)
        return out

    def read_into(self, out: Tensor, start: int) -> None:
        """Fill `out` (1-D, CPU, of this dtype) with the elements from `start` on."""
        source, stop = self.source.detach(), start + len(out)
        if source.is_contiguous():
            out.copy_(source.view(-1)[start:stop])
            return
        # only the rows along the first axis that are needed become contiguous
        row = max(source[0].numel() if source.dim() and len(source) else 1, 1)
        first, last = start // row, -(-stop // row)
        out.copy_(source[first:last].reshape(-1)[start - first * row : stop - first * row])

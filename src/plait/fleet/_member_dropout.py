"""Dropout in a batch of several members' examples: each member drops what it would alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plait.fleet._dropout import Dropout, hashed, salt, threshold


class MemberDropout(Dropout):
    """Masks of all members at once; each counts its own calls, as adapters drop for some members only.

    Args:
        keys: of the members' steps, signed 32-bit integers.
        device: of the masks.
    """

    def __init__(self, keys: Sequence[int], device: torch.device) -> None:
        super().__init__(self._masks)
        self.keys, self.device = np.array(keys, dtype=np.int32), device
        self.calls: Any = np.zeros(len(keys), dtype=np.int64)
        #: Whose examples alone are in the batch; None if those of all are.
        self._alone: int | None = None

    @contextmanager
    def alone(self, member: int) -> Iterator[None]:
        """While in it, only one member's examples are seen."""
        self._alone = member
        try:
            yield
        finally:
            self._alone = None

    def inputs(self, x: Tensor, shares: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """Which of an adapter's inputs stay, and what they are multiplied by.

        Args:
            x: `(members · rows, …, in)`.
            shares: `(members,)`, what each member drops; 0 for none, which counts as no call.

        Returns:
            `(members, rows, in)` bools, and `(members, 1, 1)` factors in float64's or float32's type of x.
        """
        members = len(self.keys)
        shape = (len(x) // members, *x.shape[1:])
        keep = self._hashed(shape) >= self._column([threshold(p) for p in shares], len(shape), torch.int32)
        self.calls = self.calls + (shares > 0)
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        return keep.view(members, -1, x.shape[-1]), self._column(1 / (1 - shares), 2, wide)

    def _masks(self, _: int, shape: tuple[int, ...], p: float) -> Tensor:
        if self._alone is not None:
            self.calls = self.calls - (np.arange(len(self.keys)) != self._alone)
            return self._hashed(shape)[self._alone] >= threshold(p)
        keep = self._hashed((shape[0] // len(self.keys), *shape[1:])) >= threshold(p)
        return keep.flatten(0, 1)

    def _hashed(self, shape: tuple[int, ...]) -> Tensor:
        salted = self.keys ^ np.array([salt(int(call)) for call in self.calls], dtype=np.int32)
        return hashed(self._column(salted, len(shape), torch.int32), shape)

    def _column(self, values: Any, dims: int, dtype: torch.dtype) -> Tensor:
        """One number for each member, to broadcast against that many dimensions of theirs."""
        return torch.as_tensor(np.asarray(values), dtype=dtype, device=self.device).view(-1, *[1] * dims)

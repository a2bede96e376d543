"""Memory that a thread reads into and computes in, again and again: fresh pages cost more than copying."""

from __future__ import annotations

import threading
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from plait.checkpoint import FileTensor, LazyTensor

_ALIGN = 64
_OWN = threading.local()


def carve(sizes: list[tuple[int, torch.dtype]]) -> list[Tensor]:
    """1-D CPU tensors of these lengths and types, side by side in this thread's memory.

    They are the caller's until the thread carves again.
    """
    starts, total = [], 0
    for length, dtype in sizes:
        starts.append(total)
        total += -(-length * dtype.itemsize // _ALIGN) * _ALIGN
    held: Tensor | None = getattr(_OWN, "arena", None)
    if held is None or held.numel() < total:
        held = _OWN.arena = None  # the old one goes first: both at once could pass the budget
        _OWN.arena = torch.empty(total, dtype=torch.uint8)
    arena: Tensor = _OWN.arena
    return [
        arena[start : start + length * dtype.itemsize].view(dtype)
        for start, (length, dtype) in zip(starts, sizes, strict=True)
    ]


def native(tensor: Tensor) -> np.ndarray[Any, Any]:
    """float32 as it is, bfloat16 as bits; anything else becomes float32."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    return tensor.to(torch.float32).numpy()


class Slot:
    """A stretch of memory that one input is read into."""

    def __init__(self, tensor: LazyTensor, memory: Tensor) -> None:
        self._tensor = tensor
        self.values = memory
        self._array: Any = None
        # numpy's stubs do not say that an array is a buffer.
        self._view = memoryview(cast("Any", memory.view(torch.uint8).numpy())) if memory.numel() else None

    def read(self, start: int) -> None:
        """Fill it with the elements from `start` on."""
        tensor, memory = self._tensor, self.values
        if isinstance(tensor, FileTensor):
            if self._view is not None:
                tensor.read_bytes(self._view, start)
        elif hasattr(tensor, "read_into"):
            cast("Any", tensor).read_into(memory, start)
        else:
            self.values = tensor.read_flat(start, start + memory.numel())
            self._array = None
        if memory.dtype not in (torch.bfloat16, torch.float32):
            self._array = None

    @property
    def array(self) -> Any:
        """What was read, as compiled loops take it."""
        if self._array is None:
            self._array = native(self.values)
        return self._array


class Block:
    """Some whole chunks of a tensor's inputs.

    Attributes:
        start: the first element.
        stop: the one behind the last.
        slots: the inputs, flat and in their own types.
    """

    def __init__(self, start: int, stop: int, slots: list[Slot]) -> None:
        self.start, self.stop, self.slots = start, stop, slots

    @property
    def inputs(self) -> list[Tensor]:
        """The inputs as tensors."""
        return [slot.values for slot in self.slots]

    def read(self) -> None:
        """Fill the slots."""
        for slot in self.slots:
            slot.read(self.start)

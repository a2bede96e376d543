"""Tensors as matrices: which are some, their way through a method, and the memory of what is held whole."""

from __future__ import annotations

import contextlib
import math
import re
import threading
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from plait.checkpoint import LazyTensor
from plait.engine._job import Job, Stopped, bad_value
from plait.errors import InputError
from plait.methods import Matrix, Method, Settings

_EXPERTS = re.compile(r"expert|exps|moe")


def as_matrices(name: str, shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """How a tensor is seen: that many matrices, of so many rows and columns; None if it is no matrix.

    A tensor of three axes is a stack if its name speaks of experts. Any other of three or more is a
    convolution, `(out, rest)`. One row or one column is a vector.
    """
    if len(shape) < 2:
        return None
    stacked = len(shape) == 3 and _EXPERTS.search(name) is not None
    found = shape if stacked else (1, shape[0], math.prod(shape[1:]))
    return (found[0], found[1], found[2]) if min(found[1:]) > 1 else None


def held_bytes(
    method: Method, settings: Settings, inputs: Sequence[LazyTensor], compute: torch.dtype
) -> int | None:
    """What merging a tensor takes that is held whole, or matrix by matrix; None if it is streamed."""
    if method.matrix is not None and settings.matrices is not None:
        _, rows, cols = settings.matrices
        # the base, a task vector, and what was read last or is written
        return 8 * (3 * rows * cols + method.matrix.memory(settings))
    if method.whole(settings):
        return settings.numel * compute.itemsize * (len(inputs) + 6)
    return None


class Room:
    """Memory that tensors take from a budget while they are computed: each waits until it fits.

    Args:
        size: bytes in all; nobody may ask for more.
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Hold so many bytes."""
        with self._changed:
            self._changed.wait_for(lambda: size <= self._free)
            self._free -= size
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._changed.notify_all()


class _NotFinite(Exception):
    """An input that was let in holds NaN or infinity."""


class _TaskVectors:
    """The task vectors of one matrix, read one by one, as often as they are gone through."""

    def __init__(self, job: Job, start: int) -> None:
        _, rows, cols = job.settings.matrices or (1, 0, 0)
        self._job, self._start, self._shape = job, start, (rows, cols)
        self.base = self._read(0)

    def _read(self, index: int) -> Tensor:
        job, (rows, cols) = self._job, self._shape
        if job.stopped():
            raise Stopped
        values = job.tensors[index].read_flat(self._start, self._start + rows * cols)
        found = values.to(job.device, torch.float64, copy=True).view(rows, cols)
        # the sum takes no memory, and is not finite if one of them is not
        if not math.isfinite(float(found.sum())) and not bool(torch.isfinite(found).all()):
            if job.allow_nan:
                raise _NotFinite
            raise bad_value(job.name, job.models[index], nan=bool(torch.isnan(found).any()))
        return found

    def __iter__(self) -> Iterator[Tensor]:
        for index in range(1, len(self._job.tensors)):
            yield self._read(index).sub_(self.base)


def merged_matrices(job: Job, matrix: Matrix) -> Iterator[tuple[int, Tensor]]:
    """The output matrix by matrix, `(start, flat values in the output type)`.

    NaN and infinity that are let in make NaN of their whole matrix: factors depend on every entry.

    Raises:
        InputError: an input holds NaN or infinity and the job forbids it.
    """
    count, rows, cols = job.settings.matrices or (0, 0, 0)
    for index in range(count):
        start = index * rows * cols
        try:
            deltas = _TaskVectors(job, start)
            found = matrix.merge(deltas, job.settings)
            if found.shape != (rows, cols):
                what = f"the method `{job.method.name}` gives {list(found.shape)} for {[rows, cols]}"
                raise InputError(what, where=f"tensor `{job.name}`")
            values = job.rounded(deltas.base.add_(found)).reshape(-1).cpu()
        except _NotFinite:
            values = torch.full((rows * cols,), math.nan, dtype=job.dtype)
        yield start, values

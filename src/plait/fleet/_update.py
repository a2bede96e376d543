"""One optimizer step for many members at once: AdamW or SGD whose every setting differs per member.

Parameters are stacked: `(members, …)`. On a CPU one compiled pass reads each number once, if all are float32
or all float64; elsewhere the same formulas run as tensor operations, parameter by parameter in its own type.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plait.fleet import _update_kernel as kernel
from plait.fleet._update_tensors import Rates, table_of, tensor_step

Floats = NDArray[np.float64]
Kind = Literal["adamw", "sgd"]
#: Below so many numbers, handing work to threads costs more than it saves.
_SMALL = 200_000
_TYPES = {torch.float32: np.float32, torch.float64: np.float64}


class Optimizer:
    """Moments of stacked parameters, and the step.

    Args:
        kind: `adamw` or `sgd`.
        parameters: `(members, …)` each, contiguous; changed in place.
        decays: for each parameter, whether it decays.
        momentum: whether SGD keeps a momentum.
        nesterov: whether that is Nesterov's.
        threads: how many run a step.
    """

    def __init__(
        self,
        kind: Kind,
        parameters: Sequence[Tensor],
        decays: Sequence[bool],
        *,
        momentum: bool = False,
        nesterov: bool = False,
        threads: int = 1,
    ) -> None:
        self.kind: Kind = kind
        self.parameters, self.decays, self.nesterov = (
            list(parameters),
            list(decays),
            nesterov,
        )
        moments = 2 if kind == "adamw" else int(momentum)
        self.moments = [[torch.zeros_like(p) for p in self.parameters] for _ in range(moments)]
        kinds = {(p.device.type, p.dtype) for p in self.parameters}
        self._compiled = None
        if kinds in ({("cpu", kind)} for kind in _TYPES):
            small = sum(p.numel() for p in self.parameters) < _SMALL
            self._compiled = _Compiled(self, 1 if small else threads)

    def step(self, gradients: Sequence[Tensor], rates: Rates) -> tuple[Floats, NDArray[np.bool_]]:
        """Take a step. A member whose gradient is not finite keeps its weights and moments.

        Args:
            gradients: like the parameters; `rates.weight` times those of the mean loss.
            rates: settings.

        Returns:
            the norms of the mean gradients before clipping `(members,)`, and who took the step.
        """
        if self._compiled is not None:
            return self._compiled.step(self, [g.contiguous() for g in gradients], rates)
        return tensor_step(self, gradients, rates)


class _Compiled:
    """Where the compiled step finds its numbers, and which part of them each thread takes."""

    def __init__(self, optimizer: Optimizer, threads: int) -> None:
        parameters = optimizer.parameters
        members = len(parameters[0])
        self.type = _TYPES[parameters[0].dtype]
        self.sizes = np.array([p.numel() // max(members, 1) for p in parameters], dtype=np.int64)
        self.decays = np.array(optimizer.decays, dtype=np.bool_)
        self.squares = np.zeros((len(parameters), members))
        self.held = [_addresses(parameters), *[_addresses(moment) for moment in optimizer.moments]]
        plain = kernel.momentum_sgd if optimizer.moments else kernel.sgd
        self.update = kernel.adamw if optimizer.kind == "adamw" else plain
        self.shares = _shares(np.repeat(self.sizes, members), threads)
        self.pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    def step(
        self, optimizer: Optimizer, gradients: Sequence[Tensor], rates: Rates
    ) -> tuple[Floats, NDArray[np.bool_]]:
        grads = _addresses(gradients)
        like = np.empty((1, len(rates.lr)), self.type)
        self._each(kernel.squares, grads, self.sizes, like, self.squares)
        norms = np.sqrt(self.squares.sum(0)) / rates.weight
        table, taken = table_of(optimizer, rates, norms)
        self._each(self.update, grads, *self.held, self.sizes, self.decays, table.astype(self.type))
        return norms, taken

    def _each(self, work: Any, *arguments: Any) -> None:
        waiting = (
            [self.pool.submit(work, *share, *arguments) for share in self.shares[1:]] if self.pool else []
        )
        for share in self.shares if not self.pool else self.shares[:1]:
            work(*share, *arguments)
        for each in waiting:
            each.result()


def _shares(pieces: NDArray[np.int64], threads: int) -> list[tuple[int, int]]:
    """Runs of pieces of about equal size, one for each thread."""
    ends = np.cumsum(pieces)
    wanted = ends[-1] * np.arange(1, threads) // threads if len(ends) else []
    cuts = [0, *(int(cut) + 1 for cut in np.searchsorted(ends, wanted)), len(pieces)]
    return [(start, stop) for start, stop in itertools.pairwise(cuts) if stop > start]


def _addresses(tensors: Sequence[Tensor]) -> NDArray[np.int64]:
    return np.array([tensor.data_ptr() for tensor in tensors], dtype=np.int64)

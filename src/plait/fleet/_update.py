"""One optimizer step for many members at once: AdamW or SGD whose every setting differs per member.

Parameters are stacked: `(members, …)`. On a CPU one compiled pass reads each number once; anywhere else, and
for other types than float32 and float64, the same formulas run as tensor operations.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plait.fleet import _update_kernel as kernel

Floats = NDArray[np.float64]
Kind = Literal["adamw", "sgd"]
#: Below so many numbers, handing work to threads costs more than it saves.
_SMALL = 200_000
_TYPES = {torch.float32: np.float32, torch.float64: np.float64}


@dataclass(frozen=True)
class Rates:
    """What a step takes from each member's settings; arrays `(members,)` in float64.

    `weight` is what gradients are divided by (they are sums over examples), `step` counts from 1, `clip` is
    infinite for none, `active` says who takes a step.
    """

    weight: Floats
    lr: Floats
    decay: Floats
    beta1: Floats
    beta2: Floats
    eps: Floats
    momentum: Floats
    clip: Floats
    step: Floats
    active: NDArray[np.bool_]


class Optimizer:
    """Moments of stacked parameters, and the step.

    Args:
        kind: `adamw` or `sgd`.
        parameters: `(members, …)` each, contiguous, of one type; changed in place.
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
        first = self.parameters[0]
        self._compiled = None
        if first.device.type == "cpu" and first.dtype in _TYPES:
            small = sum(p.numel() for p in self.parameters) < _SMALL
            self._compiled = _Compiled(self, 1 if small else threads)

    def step(self, gradients: Sequence[Tensor], rates: Rates) -> tuple[Floats, NDArray[np.bool_]]:
        """Take a step. A member whose gradient is not finite keeps its weights and moments.

        Args:
            gradients: of the sum over examples, like the parameters.
            rates: settings.

        Returns:
            the norms of the mean gradients before clipping `(members,)`, and who took the step.
        """
        if self._compiled is not None:
            return self._compiled.step(self, [g.contiguous() for g in gradients], rates)
        return _tensor_step(self, gradients, rates)


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
        table, taken = _table(optimizer, rates, norms)
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


def _table(optimizer: Optimizer, rates: Rates, norms: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """The kernels' settings `(13, members)`, and who takes the step."""
    adamw = optimizer.kind == "adamw"
    taken = rates.active & np.isfinite(norms)
    clipped = np.where(norms > rates.clip, rates.clip / (norms + 1e-6), 1.0)
    rows = np.empty((13, len(norms)))
    rows[kernel.FACTOR] = clipped / rates.weight
    rows[kernel.TAKEN] = taken
    rows[kernel.EPS] = rates.eps
    rows[kernel.BETA1], rows[kernel.REST1] = rates.beta1, 1 - rates.beta1
    rows[kernel.BETA2], rows[kernel.REST2] = rates.beta2, 1 - rates.beta2
    rows[kernel.RATE] = rates.lr / (1 - rates.beta1**rates.step) if adamw else rates.lr
    rows[kernel.MOMENTUM] = rates.momentum
    rows[kernel.AHEAD] = rates.momentum if optimizer.nesterov else 0
    rows[kernel.DECAY] = rates.decay
    rows[kernel.KEEP] = 1 - rates.lr * rates.decay
    rows[kernel.ROOT] = 1 / np.sqrt(1 - rates.beta2**rates.step)
    return rows, taken


def _tensor_step(
    optimizer: Optimizer, gradients: Sequence[Tensor], rates: Rates
) -> tuple[Floats, NDArray[np.bool_]]:
    """The same step as tensor operations."""
    like = gradients[0]
    exact = torch.float64 if like.dtype == torch.float64 else torch.float32
    squares = torch.stack([g.unsqueeze(-1).flatten(1).double().square().sum(1) for g in gradients])
    norms = squares.sum(0).sqrt().cpu().numpy() / rates.weight
    rows, taken = _table(optimizer, rates, norms)
    table = torch.as_tensor(rows, dtype=exact, device=like.device)
    for index, (p, g) in enumerate(zip(optimizer.parameters, gradients, strict=True)):
        held = [p, *(moment[index] for moment in optimizer.moments)]
        columns = table.view(len(table), -1, *[1] * (p.dim() - 1))
        now = [each.to(exact) for each in held]
        new = _formula(
            optimizer.kind, now, g.to(exact) * columns[kernel.FACTOR], columns, optimizer.decays[index]
        )
        for old, value in zip(held, new, strict=True):
            old.copy_(torch.where(columns[kernel.TAKEN] > 0, value.to(old.dtype), old))
    return norms, taken


def _formula(kind: Kind, now: list[Tensor], g: Tensor, columns: Tensor, decays: bool) -> list[Tensor]:
    """Parameters and moments after the step; the kernels' formulas."""
    p, rate = now[0], columns[kernel.RATE]
    if kind == "adamw":
        m = columns[kernel.BETA1] * now[1] + columns[kernel.REST1] * g
        v = columns[kernel.BETA2] * now[2] + columns[kernel.REST2] * g * g
        keep = columns[kernel.KEEP] if decays else 1
        return [keep * p - rate * (m / (v.sqrt() * columns[kernel.ROOT] + columns[kernel.EPS])), m, v]
    g = g + columns[kernel.DECAY] * p if decays else g
    if len(now) == 1:
        return [p - rate * g]
    m, ahead = columns[kernel.MOMENTUM] * now[1] + g, columns[kernel.AHEAD]
    return [p - rate * torch.where(ahead > 0, g + ahead * m, m), m]

"""What a client does: some steps of SGD on its own examples, from the weights that it was handed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from plait.study.federated._clients import Rows
from plait.study.federated._joined import Joined
from plait.tasks import Batch, Task

#: Sees the network, a local batch and its number (from 1), before the step; leaves the network as it is.
Look = Callable[[Joined, Mapping[str, Batch], int], None]


@dataclass(frozen=True)
class Local:
    """Local training.

    Args:
        steps: τ.
        batch_size: examples of a step; several tasks share them.
        lr: ηₗ.
        weight_decay: added to gradients, times the weights.
    """

    steps: int
    batch_size: int
    lr: float
    weight_decay: float = 0.0

    def shares(self, tasks: int) -> list[int]:
        """How many examples of a batch each of so many tasks gets."""
        return [self.batch_size // tasks + (place < self.batch_size % tasks) for place in range(tasks)]


def trained_locally(
    network: Joined,
    start: Tensor,
    rows: Mapping[str, Rows],
    local: Local,
    random: np.random.Generator,
    look: Look | None = None,
) -> Tensor:
    """Δ: what a client's training changes. Each step follows −∇ of the sum of the tasks' mean losses.

    Args:
        network: that is trained in; its weights are overwritten.
        start: the weights that the client was handed.
        rows: task → the client's examples; tasks without any are left out.
        local: how it trains.
        random: of the order of examples, and of dropout.
        look: at each local batch.
    """
    network.fill(start)
    network.train()
    held = [(t, n) for t, n in zip(network.tasks, local.shares(len(network.tasks)), strict=True)]
    streams = {
        task.name: _batches(task, rows[task.name], share, local.steps, random)
        for task, share in held
        if len(rows[task.name])
    }
    parameters = [each for each in network.parameters() if each.requires_grad]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(random.integers(2**62)))
        for number in range(1, local.steps + 1):
            batches = {name: next(stream) for name, stream in streams.items()}
            if look is not None:
                look(network, batches, number)
            loss = torch.stack(list(network.losses(batches).values())).sum()
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            descend(parameters, gradients, local)
    return network.vector() - start


def descend(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None], local: Local) -> None:
    """A step of SGD: θ − ηₗ (∇ + decay · θ); parameters that a loss does not reach stay."""
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.sub_(gradient + local.weight_decay * parameter, alpha=local.lr)


def _batches(task: Task, rows: Rows, size: int, count: int, random: np.random.Generator) -> Iterator[Batch]:
    """So many batches: examples in one random order after another, all at once if they are few."""
    size = min(size, len(rows))
    rounds = -(-size * count // len(rows))
    order = np.concatenate([random.permutation(rows) for _ in range(rounds)])
    examples = task.split("train")
    return (examples.batch(order[n * size : (n + 1) * size].tolist()) for n in range(count))

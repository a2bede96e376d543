"""How much a step for one task helps another: MAS's affinities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from plait.errors import InputError
from plait.study.federated._joined import Joined
from plait.study.federated._local import Local, descend
from plait.tasks import Batch

Floats = NDArray[np.float64]


class Affinities:
    """Means of S over the batches that are probed: every so many of each client's local batches.

    Args:
        tasks: names, in order.
        every: of how many local batches one is probed.
        local: how clients train.
    """

    def __init__(self, tasks: Sequence[str], every: int, local: Local) -> None:
        self.tasks, self.every, self.local = list(tasks), every, local
        self.sums, self.counts = np.zeros((2, len(tasks), len(tasks)))

    def look(self, network: Joined, batches: Mapping[str, Batch], number: int) -> None:
        """A client's local batch, by its number in the request."""
        if number % self.every:
            return
        for (one, other), value in probe(network, batches, self.local).items():
            place = self.tasks.index(one), self.tasks.index(other)
            self.sums[place] += value
            self.counts[place] += 1

    def mean(self) -> Floats:
        """`(tasks, tasks)`: the mean S of a step for the row's task on the column's.

        Raises:
            InputError: two tasks never met in a batch.
        """
        never = np.argwhere(self.counts == 0)
        for one, other in never:
            if one != other:
                what = f"no client that was probed has examples of both `{self.tasks[one]}`"
                hint = "give a larger `alpha`, fewer `clients` or more `requests`"
                raise InputError(f"{what} and `{self.tasks[other]}`", hint=hint)
        with np.errstate(invalid="ignore"):
            return self.sums / self.counts

    def state(self) -> dict[str, Any]:
        """All of it, as plain values."""
        return {"sums": self.sums.tolist(), "counts": self.counts.tolist()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what `state` gave."""
        self.sums, self.counts = np.array(state["sums"]), np.array(state["counts"])


def affinity(before: float, after: float, lr: float) -> float:
    """S = (1 − after / before) / η: by how much of itself a loss falls, per unit of the learning rate."""
    return (1 - after / before) / lr


def probe(network: Joined, batches: Mapping[str, Batch], local: Local) -> dict[tuple[str, str], float]:
    """S of every ordered pair of tasks on one batch.

    For each task i the body alone makes a step, φᵢ = φ − η (∇L_i + decay · φ); all losses are looked at
    there, and the network is as it was afterwards, to the bit. Dropout is the same in all of them.

    Args:
        network: in training.
        batches: task → its examples.
        local: how clients train.

    Returns:
        (i, j) → S of a step for i on j; without those j whose loss is 0.
    """
    kept = {name: each.detach().clone() for name, each in network.state_dict().items()}
    body = [each for each in network.body.parameters() if each.requires_grad]
    found = {}
    with torch.random.fork_rng(devices=[]):
        before = _losses(network, batches)
        for one in batches:
            torch.manual_seed(0)
            loss = network.losses({one: batches[one]})[one]
            gradients = torch.autograd.grad(loss, body, allow_unused=True)
            descend(body, gradients, local)
            after = _losses(network, batches)
            network.load_state_dict(kept)
            found |= {
                (one, other): affinity(before[other], after[other], local.lr)
                for other in batches
                if before[other] != 0
            }
    network.load_state_dict(kept)
    return found


def _losses(network: Joined, batches: Mapping[str, Batch]) -> dict[str, float]:
    found = {}
    for name, batch in batches.items():
        torch.manual_seed(0)
        with torch.no_grad():
            found[name] = float(network.losses({name: batch})[name])
    return found

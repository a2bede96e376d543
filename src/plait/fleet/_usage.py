"""Which parameters a loss depends on: PyTorch's optimizers leave the others alone, decay included."""

from __future__ import annotations

import copy
from typing import Any

import torch

from plait.errors import InputError
from plait.fleet._batches import Stack
from plait.fleet._dropout import dropout
from plait.fleet._noise import noise_kept
from plait.fleet._refused import unstackable
from plait.fleet._trainee import Trainee
from plait.tasks import Batch


class Usage:
    """The parameters that no loss of a member depends on, as it is trained.

    Asked once for each shape of a batch: Python code may look at shapes, and vmap refuses what looks at more.

    Args:
        trainee: the member; neither its network nor any generator is changed.
        device: where it is trained.

    Raises:
        InputError: its loss depends on no parameter at all.
    """

    def __init__(self, trainee: Trainee, device: torch.device) -> None:
        self.trainee, self.device = trainee, device
        batch = {name: column.to(device) for name, column in trainee.batch(0).items()}
        self._asked = {_shapes(batch)}
        self.idle = self._found(batch)

    def check(self, stack: Stack, place: int) -> None:
        """Nothing if a stacked batch leaves the same parameters unused.

        Args:
            stack: the batches of all members.
            place: whose of them is looked at.

        Raises:
            Unstackable: it does not, so that a stack would move parameters which PyTorch leaves alone.
        """
        batch = {name: column if stack.shared else column[place] for name, column in stack.batch.items()}
        shapes = _shapes(batch)
        if shapes in self._asked:
            return
        self._asked.add(shapes)
        changed = sorted(self._found(batch) ^ self.idle)
        if changed:
            what = f"its loss depends on `{changed[0]}` in some batches and not in others"
            raise unstackable(self.trainee.network, what)

    def _found(self, batch: Batch) -> set[str]:
        task = self.trainee.task
        network = copy.deepcopy(self.trainee.network).to(self.device)
        named = {name: p for name, p in network.named_parameters() if p.requires_grad}
        key = torch.zeros((), dtype=torch.int32, device=self.device)
        with noise_kept(self.device), dropout(key):
            values, _ = task.loss(task.outputs(network, batch), batch)
        if not values.requires_grad:
            what = "its loss depends on no parameter that is trained"
            raise InputError(what, where=f"member `{self.trainee.member.name}`")
        found = torch.autograd.grad(values.sum(), list(named.values()), allow_unused=True)
        return {name for name, gradient in zip(named, found, strict=True) if gradient is None}


def _shapes(batch: Batch) -> tuple[Any, ...]:
    return tuple((name, tuple(column.shape)) for name, column in sorted(batch.items()))

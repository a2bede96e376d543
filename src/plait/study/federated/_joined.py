"""One body with the heads of one or more tasks, and its weights as one vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from plait.checkpoint import HEAD_FILE, save_module
from plait.tasks import Batch, Headed, Task, save_network


class Joined(nn.Module):
    """A body that learns some tasks together, each with a head of its own.

    Args:
        body: shared; not copied.
        tasks: whose heads are copied.
    """

    def __init__(self, body: nn.Module, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.body, self.tasks = body, tuple(tasks)
        self.each = nn.ModuleList([task.with_body(body, copy_body=False) for task in tasks])
        held = [*self.parameters(), *self.buffers()]
        #: What the vector is made of, and what is not averaged: counters and the like.
        self.held = [each for each in held if each.is_floating_point()]
        self._others = [(each, each.clone()) for each in held if not each.is_floating_point()]

    def of(self, task: str) -> nn.Module:
        """The body with a task's head."""
        return self.each[[own.name for own in self.tasks].index(task)]

    def losses(self, batches: Mapping[str, Batch]) -> dict[str, Tensor]:
        """Each task's mean loss over its own batch."""
        found = {}
        for task in self.tasks:
            if task.name in batches:
                batch = batches[task.name]
                values, weights = task.loss(task.outputs(self.of(task.name), batch), batch)
                found[task.name] = values.sum() / weights.sum()
        return found

    def vector(self) -> Tensor:
        """A copy of all parameters and floating-point buffers, one after another."""
        return torch.cat([each.detach().reshape(-1) for each in self.held])

    def fill(self, vector: Tensor) -> None:
        """Take the weights of a vector; what no vector holds is as it was when this was made."""
        with torch.no_grad():
            parts = vector.split([each.numel() for each in self.held])
            for each, part in zip(self.held, parts, strict=True):
                each.copy_(part.view_as(each))
            for each, start in self._others:
                each.copy_(start)

    def take(self, other: Joined) -> None:
        """Take another's body, and its heads for these tasks."""
        self.body.load_state_dict(other.body.state_dict())
        for task in self.tasks:
            mine, theirs = self.of(task.name), other.of(task.name)
            if isinstance(mine, Headed) and isinstance(theirs, Headed):
                mine.head.load_state_dict(theirs.head.state_dict())

    def save(self, folder: Path, heads: Path) -> dict[str, Path]:
        """Write the body as a checkpoint, and each head in a folder of its own.

        Args:
            folder: of the body.
            heads: folder of the heads' folders.

        Returns:
            task → folder of its head.
        """
        save_network(self.body, folder)
        places = {}
        for number, task in enumerate(self.tasks):
            place = places[task.name] = heads / f"{number}"
            whole = self.of(task.name)
            if isinstance(whole, Headed):
                place.mkdir(parents=True, exist_ok=True)
                save_module(whole.head, place / HEAD_FILE)
        return places

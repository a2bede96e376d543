"""What the server keeps of a model: its weights, what has come back from clients, how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from plait.errors import InputError
from plait.study.federated._joined import Joined

#: What is saved of a model besides its tensors.
_PLAIN = (
    "version",
    "received",
    "asked",
    "places",
    "round",
    "measured_at",
    "finished",
    "reached",
    "variances",
)


@dataclass
class Model:
    """A model that is trained by clients.

    Args:
        name: its name.
        network: that its clients train in, and that it is measured in.
        work: of one of its requests.
        theta: its weights, as a vector.
        version: counts its updates.
        received: how many clients' updates have come back.
        asked: how many requests have been sent out.
        places: R, how many requests may be active at once.
        round: how many were asked in the present round, where training has rounds.
        measured_at: what `received` was when it was last measured.
        finished: whether it is trained no more.
        reached: task → when its target was reached.
        buffer: updates since the last version.
        recent: the last updates, the newest last.
        variances: estimates since requests were last shared out.
    """

    name: str
    network: Joined
    work: float
    theta: Tensor
    version: int = 0
    received: int = 0
    asked: int = 0
    places: int = 0
    round: int = 0
    measured_at: int = 0
    finished: bool = False
    reached: dict[str, float] = field(default_factory=dict)
    buffer: list[Tensor] = field(default_factory=list)
    recent: list[Tensor] = field(default_factory=list)
    variances: list[float] = field(default_factory=list)

    @property
    def tasks(self) -> list[str]:
        """Names of what it learns."""
        return [task.name for task in self.network.tasks]

    def update(self, server_lr: float) -> None:
        """θ ← θ + η_g / B · ΣΔ over the buffer, which is empty then.

        Raises:
            InputError: a weight is no number any more.
        """
        self.theta = self.theta + torch.stack(self.buffer).sum(0) * (server_lr / len(self.buffer))
        self.version += 1
        self.buffer.clear()
        if not torch.isfinite(self.theta).all():
            hint = "lower `lr` or `server_lr`"
            raise InputError(f"model `{self.name}` has weights that are no numbers", hint=hint)

    def tensors(self) -> dict[str, Tensor]:
        """What is saved of it as tensors."""
        held = {"theta": self.theta}
        held |= {f"buffer {n}": each for n, each in enumerate(self.buffer)}
        # Recent updates may be in the buffer too, and two names can't share memory in a file.
        return held | {f"recent {n}": each.clone() for n, each in enumerate(self.recent)}

    def state(self) -> dict[str, Any]:
        """What is saved of it besides."""
        return {name: getattr(self, name) for name in _PLAIN}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Take what was saved."""
        for name in _PLAIN:
            setattr(self, name, state[name])
        self.theta = tensors["theta"]
        self.buffer = [tensors[f"buffer {n}"] for n in range(_count(tensors, "buffer "))]
        self.recent = [tensors[f"recent {n}"] for n in range(_count(tensors, "recent "))]


def _count(tensors: Mapping[str, Tensor], start: str) -> int:
    return sum(name.startswith(start) for name in tensors)

"""When clients are asked, which, and when what came back makes a new version."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from plait.study.federated._allocation import dealt, update_variance
from plait.study.federated._clients import Clients
from plait.study.federated._clock import Request
from plait.study.federated._local import Local
from plait.study.federated._server import Model


class Policy(Protocol):
    """How a server goes about it."""

    @property
    def unit(self) -> int:
        """Active requests are shared out in multiples of it."""
        ...

    def asked(
        self, models: Sequence[Model], flying: Counter[str], clients: Clients
    ) -> list[tuple[Model, int]]:
        """Which clients are asked for which models now.

        Args:
            models: that are not finished.
            flying: model → its requests that are not done.
            clients: all.
        """
        ...

    def takes(self, model: Model, request: Request) -> bool:
        """Whether what came back counts."""
        ...

    def full(self, model: Model) -> bool:
        """Whether the buffer makes a new version."""
        ...

    def received(self, models: Sequence[Model], model: Model, delta: Tensor, arrivals: int) -> None:
        """See what came back, with which so many have come back in all; it is in the buffer already."""
        ...


@dataclass(frozen=True)
class Synchronous:
    """FedAvg: a round asks as many clients as a model has places, all different, and ends with the slowest.

    Each model has rounds of its own. McMahan et al., arXiv:1602.05629, with clients of equal weight.

    Args:
        wait_for: the share of a round's clients that are waited for; the others' work is lost.
    """

    wait_for: float = 1.0
    unit: int = 1

    def asked(
        self, models: Sequence[Model], flying: Counter[str], clients: Clients
    ) -> list[tuple[Model, int]]:
        found = []
        for model in models:
            if flying[model.name] == 0:
                having = clients.having(model.tasks)
                random = clients.random("round", model.name, model.asked)
                chosen = random.choice(having, min(model.places, len(having)), replace=False)
                model.round = len(chosen)
                found += [(model, int(client)) for client in chosen]
        return found

    def takes(self, model: Model, request: Request) -> bool:
        return request.version == model.version

    def full(self, model: Model) -> bool:
        # Less a little, since 0.1 · 30 is more than 3 in binary.
        return len(model.buffer) >= math.ceil(self.wait_for * model.round - 1e-9)

    def received(self, models: Sequence[Model], model: Model, delta: Tensor, arrivals: int) -> None:
        pass


@dataclass(frozen=True)
class Asynchronous:
    """FedAST (Askin et al., arXiv:2406.00302): nobody waits for anybody; a full buffer makes a new version.

    Updates count whatever version they started from. Each that comes back frees a place, and a client,
    drawn uniformly from all, is asked for whichever model has most places free: for the same model, unless
    places were shared out anew.

    Args:
        local: how clients train, and `server_lr` what becomes of it, for the estimates below.
        server_lr: η_g.
        buffer: B, if it is one size.
        ratio: ρ, if requests are shared out by need: B = ⌈R / ρ⌉, R ∝ √v in multiples of ρ, at least ρ, with
            the mean of v over ¾ · ΣR · models updates. (The authors' program halves v where the paper takes
            the root; this is the paper's.)
        window: how many of a model's last updates an estimate of v is made of.
    """

    local: Local
    server_lr: float
    buffer: int | None = None
    ratio: int | None = None
    window: int = 8

    @property
    def unit(self) -> int:
        return self.ratio or 1

    def asked(
        self, models: Sequence[Model], flying: Counter[str], clients: Clients
    ) -> list[tuple[Model, int]]:
        found, active = [], Counter(flying)
        total = sum(model.places for model in models)
        for _ in range(total - sum(active[model.name] for model in models)):
            model = max(models, key=lambda each: each.places - active[each.name])
            active[model.name] += 1
            own = model.asked + sum(other is model for other, _ in found)
            random = clients.random("client", model.name, own)
            found.append((model, int(random.choice(clients.having(model.tasks)))))
        return found

    def takes(self, model: Model, request: Request) -> bool:
        return True

    def full(self, model: Model) -> bool:
        size = self.buffer if self.ratio is None else -(-model.places // self.ratio)
        assert size is not None
        return len(model.buffer) >= size

    def received(self, models: Sequence[Model], model: Model, delta: Tensor, arrivals: int) -> None:
        if self.ratio is None:
            return
        model.recent.append(delta)
        del model.recent[: -self.window]
        if self.full(model) and len(model.recent) == self.window:
            found = update_variance(model.recent, self.local.lr, self.server_lr, self.local.steps)
            model.variances += [] if found is None else [found]
        places = sum(each.places for each in models)
        if arrivals % max(1, 3 * places * len(models) // 4) == 0:
            self._share_out(models, places)

    def _share_out(self, models: Sequence[Model], places: int) -> None:
        """R ∝ √v; nothing changes while some model has no estimate."""
        if not all(model.variances for model in models):
            return
        roots = [math.sqrt(float(np.mean(model.variances))) for model in models]
        for model, share in zip(models, dealt(places, roots, self.unit, least=1), strict=True):
            model.places = share
            model.variances.clear()

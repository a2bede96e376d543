"""Clients: which training examples each has, and how long it takes for what it is asked."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.tasks import CrossEntropy, Task, known_labels

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Delays:
    """How long clients take: slowness · work · (shift + Exp(1 − shift)), on average slowness · work.

    A quarter of the clients is slow, a quarter fast. With all three at 1 everything takes equally long.

    Args:
        shift: the part of the time that is always the same, from 0 to 1.
        slow: slowness of slow clients; that of normal ones is 1.
        fast: slowness of fast clients.
    """

    shift: float = 1 / 3
    slow: float = 2.0
    fast: float = 0.5


@dataclass(frozen=True)
class Clients:
    """The clients of a federation.

    Args:
        shards: task → rows of its training examples that each client has; one may have none.
        slowness: `(clients,)`.
        shift: of the delays.
        seed: of delays and draws.
    """

    shards: Mapping[str, Sequence[Rows]]
    slowness: NDArray[np.float64]
    shift: float
    seed: int

    def having(self, tasks: Sequence[str]) -> Rows:
        """Those that have examples of at least one of some tasks."""
        return np.flatnonzero(np.any([[len(rows) > 0 for rows in self.shards[task]] for task in tasks], 0))

    def random(self, what: str, model: str, number: int) -> np.random.Generator:
        """Numbers for one purpose, one model and its so-manieth request; others don't move them."""
        return np.random.default_rng([self.seed, zlib.crc32(f"{what}/{model}".encode()), number])

    def seconds(self, client: int, model: str, number: int, work: float) -> float:
        """How long a client takes for a request, in simulated time.

        Args:
            client: which.
            model: that it trains.
            number: of the request, among those of the model.
            work: that it is; 1 takes a normal client one unit on average.
        """
        drawn = self.random("delay", model, number).exponential(1 - self.shift) if self.shift < 1 else 0.0
        return float(self.slowness[client] * work * (self.shift + drawn))


def gathered(tasks: Sequence[Task], count: int, alpha: float | None, delays: Delays, seed: int) -> Clients:
    """So many clients, with each task's training examples dealt to them.

    Args:
        tasks: whose `train` is dealt.
        count: of clients.
        alpha: of the Dirichlet distribution; None deals evenly.
        delays: how long they take.
        seed: of everything that is drawn.
    """
    slowness = np.ones(count)
    slowness[: count // 4], slowness[count - count // 4 :] = delays.slow, delays.fast
    slowness = np.random.default_rng([seed, zlib.crc32(b"speeds")]).permutation(slowness)
    shards = {task.name: deal(task, count, alpha, seed) for task in tasks}
    return Clients(shards, slowness, delays.shift, seed)


def deal(task: Task, clients: int, alpha: float | None, seed: int) -> list[Rows]:
    """A task's training examples, dealt: of each class the clients get shares drawn from Dirichlet(α).

    Tasks without classes, and those whose labels are not known before examples are made, are dealt evenly.

    Returns:
        rows of each client; every row is one client's.
    """
    examples = task.split("train")
    label: Any = task.loss.label if isinstance(task.loss, CrossEntropy) and alpha is not None else None
    labels = known_labels(examples, label) if label is not None else None
    random = np.random.default_rng([seed, zlib.crc32(f"deal/{task.name}".encode())])
    kinds = np.zeros(len(examples)) if labels is None else labels.numpy()
    parts: list[list[Rows]] = [[] for _ in range(clients)]
    for kind in np.unique(kinds):
        own = random.permutation(np.flatnonzero(kinds == kind))
        even = labels is None or alpha is None
        shares = np.full(clients, 1 / clients) if even else random.dirichlet(np.full(clients, alpha))
        ends = np.round(np.cumsum(shares)[:-1] * len(own)).astype(np.int64)
        for part, piece in zip(parts, np.split(own, ends), strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(part)) for part in parts]

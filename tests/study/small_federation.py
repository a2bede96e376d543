"""Two or more small tasks on tables, clients that have their examples, and stages that train them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from plait.study import federated
from plait.study.federated import Clients, Delays, Goal, Joined, Local, Model, Policy, Request, Stage
from plait.tasks import Task

EQUAL = Delays(shift=1, slow=1, fast=1)
#: All of a client's examples in every step.
LOCAL = Local(3, 200, 0.3)


def task(name: str, seed: int, rows: int = 120) -> Task:
    """Three classes by a rule of its own."""
    random = np.random.default_rng(seed)
    splits = {}
    rule = random.normal(size=(4, 3))
    for split in ("train", "validation"):
        x = random.normal(size=(rows, 4)).astype(np.float32)
        splits[split] = (x, (np.tanh(x) @ rule).argmax(1))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Task(name, splits, head=nn.Linear(5, 3))


def body() -> nn.Module:
    """The same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh())


def models(tasks: Sequence[Task], work: Sequence[float] | None = None) -> list[Model]:
    """One for each task."""
    found = []
    for number, each in enumerate(tasks):
        network = Joined(body(), [each])
        found.append(Model(each.name, network, work[number] if work else 1.0, network.vector()))
    return found


def stage(
    file: Path,
    tasks: Sequence[Task],
    policy: Policy,
    *,
    places: int,
    limit: int = 24,
    local: Local = LOCAL,
    clients: Clients | None = None,
    delays: Delays = EQUAL,
    count: int = 40,
    seed: int = 0,
    server_lr: float = 1.0,
    measured: Callable[[Model, str], float] = lambda model, task: 0.0,
    targets: dict[str, float] | None = None,
    work: Sequence[float] | None = None,
    every: int = 4,
) -> Stage:
    """Training of a model for each task."""
    clients = clients or federated.gathered(tasks, count, None, delays, seed)
    goal = Goal(measured, limit, every, targets or {})
    return Stage(models(tasks, work), clients, policy, local, server_lr, goal, places, file)


def noted(one: Stage) -> list[tuple[float, Request]]:
    """What is asked in a stage from now on, and when."""
    found: list[tuple[float, Request]] = []
    ask = one.clock.ask

    def asked(request: Request) -> None:
        found.append((one.clock.now, request))
        ask(request)

    one.clock.ask = asked
    return found


def descended(one: Task, vector: torch.Tensor, rows: Any, local: Local) -> torch.Tensor:
    """Plain gradient descent on all of a client's examples; the weights afterwards."""
    assert one.head is not None
    network = nn.Sequential(body(), nn.Linear(5, 3)).double()
    nn.utils.vector_to_parameters(vector.double().clone(), network.parameters())
    batch = one.split("train").batch(rows)
    optimizer = torch.optim.SGD(network.parameters(), lr=local.lr, weight_decay=local.weight_decay)
    for _ in range(local.steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(batch["input"].double()), batch["label"]).backward()
        optimizer.step()
    return nn.utils.parameters_to_vector(network.parameters()).detach()

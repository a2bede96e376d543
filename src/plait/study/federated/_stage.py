"""Federated training from a start to an end: clients train, the server updates, time goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from plait.checkpoint import save_tensors
from plait.study.federated._affinity import Affinities
from plait.study.federated._allocation import dealt
from plait.study.federated._clients import Clients
from plait.study.federated._clock import Clock, Request
from plait.study.federated._local import Local, trained_locally
from plait.study.federated._policies import Policy
from plait.study.federated._server import Model

#: Updates from clients between two saves.
_SAVE_EVERY = 64


@dataclass(frozen=True)
class Record:
    """A measurement: which task, when, how good, and after how many updates from clients."""

    task: str
    time: float
    value: float
    received: int


@dataclass(frozen=True)
class Goal:
    """When a model is finished: as soon as all its tasks have reached their targets, or at the limit.

    Args:
        measured: a task's score with a model's network.
        limit: of updates from clients for each model; those of a last version come along.
        every: so many updates from clients are between two measurements, at least.
        targets: task → the score that is enough; others never have enough.
        ends: whether targets finish a model; it is told when they were reached either way.
    """

    measured: Callable[[Model, str], float]
    limit: int
    every: int
    targets: Mapping[str, float] = field(default_factory=dict)
    ends: bool = True


class Stage:
    """Training of some models on shared clients.

    Args:
        models: at least one.
        clients: who train.
        policy: when they are asked.
        local: how they train.
        server_lr: η_g.
        goal: when it ends.
        places: ΣR, requests that are active at once.
        file: where it is saved; if it is there, it is gone on with.
        now: when it starts.
        affinities: look at clients' batches.
    """

    def __init__(
        self,
        models: Sequence[Model],
        clients: Clients,
        policy: Policy,
        local: Local,
        server_lr: float,
        goal: Goal,
        places: int,
        file: Path,
        now: float = 0.0,
        affinities: Affinities | None = None,
    ) -> None:
        self.models, self.clients, self.policy, self.goal = list(models), clients, policy, goal
        self.local, self.server_lr, self.file, self.affinities = local, server_lr, file, affinities
        self.clock, self.arrivals, self._saved = Clock(now), 0, 0
        self.records: list[Record] = []
        #: Weights that clients in the midst of training started from.
        self._handed: dict[tuple[str, int], Tensor] = {}
        for model, share in zip(models, dealt(places, [1] * len(models), policy.unit), strict=True):
            model.places = share

    @property
    def live(self) -> list[Model]:
        """Models that are not finished."""
        return [model for model in self.models if not model.finished]

    def run(self) -> None:
        """Train until all models are finished.

        Raises:
            InputError: a model has weights that are no numbers any more.
        """
        if self.file.is_file():
            self._restore()
        else:
            for model in self.models:
                self._measure(model)
            self._ask()
        while self.live:
            for request in self.clock.arrivals():
                self._receive(request)
            self._forget()
            self._ask()
            if self.arrivals // _SAVE_EVERY > self._saved // _SAVE_EVERY or not self.live:
                self._save()

    def _ask(self) -> None:
        """Fill the places that are free."""
        for model, client in self.policy.asked(self.live, self.clock.flying, self.clients):
            seconds = self.clients.seconds(client, model.name, model.asked, model.work)
            self.clock.ask(Request(model.name, model.asked, client, model.version, seconds))
            self._handed[model.name, model.version] = model.theta
            model.asked += 1

    def _receive(self, request: Request) -> None:
        """Take what a client sends back; it is computed only now."""
        model = next(model for model in self.models if model.name == request.model)
        if model.finished or not self.policy.takes(model, request):
            return
        delta = self._trained(model, request)
        self.arrivals += 1
        model.received += 1
        model.buffer.append(delta)
        self.policy.received(self.live, model, delta, self.arrivals)
        if self.policy.full(model):
            model.update(self.server_lr)
            own = [request for request in self.clock.pending if request.model == model.name]
            if not all(self.policy.takes(model, each) for each in own):
                self.clock.cancel(model.name)
            if self._due(model):
                self._measure(model)

    def _trained(self, model: Model, request: Request) -> Tensor:
        rows = {task: self.clients.shards[task][request.client] for task in model.tasks}
        random = self.clients.random(f"local/{request.client}", model.name, request.number)
        start = self._handed[model.name, request.version]
        look = self.affinities.look if self.affinities is not None else None
        return trained_locally(model.network, start, rows, self.local, random, look)

    def _forget(self) -> None:
        """Versions that no client trains from any more."""
        needed = {(request.model, request.version) for request in self.clock.pending}
        self._handed = {key: each for key, each in self._handed.items() if key in needed}

    def _due(self, model: Model) -> bool:
        since = model.received - model.measured_at
        return since >= self.goal.every or model.received >= self.goal.limit

    def _measure(self, model: Model) -> None:
        """Score a model, and finish it if that is enough."""
        model.network.fill(model.theta)
        model.measured_at = model.received
        for task in model.network.tasks:
            value = self.goal.measured(model, task.name)
            self.records.append(Record(task.name, self.clock.now, value, model.received))
            target = self.goal.targets.get(task.name)
            if target is not None and task.name not in model.reached:
                enough = value >= target if task.metric.higher_is_better else value <= target
                model.reached |= {task.name: self.clock.now} if enough else {}
        enough = self.goal.ends and len(model.reached) == len(model.tasks)
        if enough or model.received >= self.goal.limit:
            self._finish(model)

    def _finish(self, model: Model) -> None:
        """A model needs no more: its requests are cancelled, its places are the others'."""
        model.finished = True
        self.clock.cancel(model.name)
        if self.live:
            shares = dealt(model.places, [each.places for each in self.live], self.policy.unit)
            for other, share in zip(self.live, shares, strict=True):
                other.places += share
        model.places = 0

    def _save(self) -> None:
        tensors = {f"{n}/{k}": t for n, m in enumerate(self.models) for k, t in m.tensors().items()}
        names = [model.name for model in self.models]
        tensors |= {f"handed/{names.index(m)}/{v}": t.clone() for (m, v), t in self._handed.items()}
        state: dict[str, Any] = {
            "clock": self.clock.state(),
            "arrivals": self.arrivals,
            "models": [model.state() for model in self.models],
            "records": [asdict(record) for record in self.records],
            "affinities": None if self.affinities is None else self.affinities.state(),
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(tensors, self.file, {"state": json.dumps(state)})
        self._saved = self.arrivals

    def _restore(self) -> None:
        with safe_open(self.file, "pt") as held:
            state = json.loads(held.metadata()["state"])
            tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118
        self.clock = Clock.restored(state["clock"])
        self.arrivals = self._saved = state["arrivals"]
        self.records = [Record(**record) for record in state["records"]]
        if self.affinities is not None:
            self.affinities.restore(state["affinities"])
        for number, (model, known) in enumerate(zip(self.models, state["models"], strict=True)):
            start = f"{number}/"
            own = {k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)}
            model.restore(known, own)
        self._handed = {}
        for name, tensor in tensors.items():
            kind, _, place = name.partition("/")
            if kind == "handed":
                number, version = place.split("/")
                self._handed[self.models[int(number)].name, int(version)] = tensor

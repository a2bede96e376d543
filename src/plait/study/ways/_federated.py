"""Federated training: many models at once on clients with data and speeds of their own, in simulated time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from plait.errors import InputError, nearest
from plait.recipe import Keys
from plait.study import federated
from plait.study._at import INDEX
from plait.study._training import SIMULATED
from plait.study._whole import write_json
from plait.study.federated import Clients, Goal, Joined, Local, Model, Policy, Stage
from plait.study.ways._way import Way
from plait.tasks import Suite, Task

if TYPE_CHECKING:
    from plait.study._at import At
    from plait.study._document import StudyDocument
    from plait.study._study import Study

#: On which targets are reached and curves are measured.
VALIDATION = "validation"


Target = Annotated[float, Field(allow_inf_nan=False)]


class DelayKeys(Keys):
    """How long clients take; see `plait.study.federated.Delays`."""

    shift: float = Field(default=1 / 3, ge=0, le=1)
    slow: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    fast: float = Field(default=0.5, gt=0, allow_inf_nan=False)


class Federated(Way):
    """What all ways of federated training have: clients, local training, and when it ends."""

    kind: ClassVar[str] = "federated"
    of_experts: ClassVar[bool] = False
    tunable: ClassVar[bool] = False

    clients: int = Field(default=100, ge=1)
    alpha: float | None = Field(default=0.1, gt=0, allow_inf_nan=False)
    active: int = Field(default=12, ge=1)
    local_steps: int = Field(default=10, ge=1)
    batch_size: int = Field(default=16, ge=1)
    lr: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    server_lr: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    requests: int = Field(default=300, ge=1)
    target: Target | dict[str, Target] | None = None
    measure_every: int | None = Field(default=None, ge=1)
    delays: DelayKeys = Field(default_factory=DelayKeys.model_construct)

    @property
    def local(self) -> Local:
        """How clients train."""
        return Local(self.local_steps, self.batch_size, self.lr, self.weight_decay)

    def problems_of_suite(self, suite: Suite, where: str) -> list[InputError]:
        needing = "measurements" if self.target is None else "targets"
        problems = [
            InputError(f"task `{task.name}` has no split `{VALIDATION}`, which {needing} need", where=where)
            for task in suite.tasks
            if VALIDATION not in task.splits
        ]
        known = [task.name for task in suite.tasks]
        given = self.target if isinstance(self.target, dict) else {}
        problems += [
            InputError(f"`target` names no task `{task}`", where=where, hint=nearest(task, known))
            for task in given
            if task not in known
        ]
        problems += [
            InputError(
                f"task `{task.name}` has fewer training examples than the {self.clients} clients",
                where=where,
                hint="give fewer `clients`",
            )
            for task in suite.tasks
            if "train" in task.splits and len(task.split("train")) < self.clients
        ]
        return problems

    def splits(self, study: Study) -> tuple[str, ...]:
        del study
        return ("train", VALIDATION)

    def targets(self, suite: Suite) -> dict[str, float]:
        """Task → the validation score that is enough."""
        if self.target is None or isinstance(self.target, dict):
            return dict(self.target or {})
        return {task.name: self.target for task in suite.tasks}

    def gathered(self, at: At) -> Clients:
        """The clients, with the suite's training examples dealt to them."""
        delays = federated.Delays(self.delays.shift, self.delays.slow, self.delays.fast)
        return federated.gathered(at.suite.tasks, self.clients, self.alpha, delays, at.seed)

    def work(self, at: At) -> dict[str, float]:
        """Task → what one example's way through the network costs."""
        body = at.body(at.base)
        return {task.name: federated.forward_work(task, body) for task in at.suite.tasks}

    def stage(
        self, at: At, models: Sequence[Model], clients: Clients, policy: Policy, file: Path, **more: Any
    ) -> Stage:
        """Training of some models with all active requests; `more` goes before what is said here."""

        def measured(model: Model, task: str) -> float:
            return at.measured(model.network.of(task), at.suite[task], VALIDATION)

        every = self.measure_every or max(1, self.active // len(at.suite.tasks))
        limit, ends = more.pop("limit", self.requests), more.pop("ends", True)
        goal = Goal(measured, limit, every, self.targets(at.suite), ends)
        return Stage(models, clients, policy, self.local, self.server_lr, goal, self.active, file, **more)

    def answers(self, at: At, folder: Path | None) -> Callable[[Task], nn.Module]:
        assert folder is not None
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))

        def network(task: Task) -> nn.Module:
            own = index[task.name]
            return at.on_task(at.body(folder / own["model"]), task, {task.name: folder / own["head"]})

        return network


class Federate(Federated):
    """`federate: fedast`, `synchronous` or `sequential`: a model for each task.

    `fedast` is Askin et al., arXiv:2406.00302; `synchronous` FedAvg of all tasks at once, each with its share
    of the active requests; `sequential` FedAvg of one task after another, each with all of them.
    """

    federate: Literal["fedast", "synchronous", "sequential"]
    buffer: int | None = Field(default=None, ge=1)
    ratio: int | None = Field(default=None, ge=1)
    window: int = Field(default=8, ge=2)
    wait_for: float = Field(default=1.0, gt=0, le=1)

    @property
    def method(self) -> str:
        return "arXiv:2406.00302" if self.federate == "fedast" else "arXiv:1602.05629"

    def problems(self, study: StudyDocument, where: str) -> list[InputError]:
        problems = []
        if self.buffer is not None and self.ratio is not None:
            hint = "with `ratio`, a buffer is as large as a model's active requests over it"
            problems.append(InputError("it has a `buffer` and a `ratio`", where=where, hint=hint))
        if self.buffer is not None and self.buffer > self.requests:
            what = f"`requests` of {self.requests} never fill a `buffer` of {self.buffer}"
            problems.append(InputError(what, where=where, hint="raise `requests`, or lower `buffer`"))
        others = {"buffer", "ratio", "window"} if self.federate != "fedast" else {"wait_for"}
        problems += [
            InputError(f"`federate: {self.federate}` has no `{key}`", where=where)
            for key in sorted(others & self.model_fields_set)
        ]
        if self.federate != "fedast" and self.active > self.clients:
            what = f"a round can't ask {self.active} of {self.clients} clients"
            problems.append(InputError(what, where=where, hint="raise `clients`, or lower `active`"))
        return problems

    def problems_of_suite(self, suite: Suite, where: str) -> list[InputError]:
        problems, least = super().problems_of_suite(suite, where), (self.ratio or 1) * len(suite.tasks)
        if self.federate != "sequential" and self.active < least:
            what = f"{self.active} active requests are too few for {len(suite.tasks)} tasks"
            hint = f"give `active` at least {least}"
            problems.append(InputError(what, where=where, hint=hint))
        return problems

    @property
    def policy(self) -> Policy:
        """How the server goes about it."""
        if self.federate != "fedast":
            return federated.Synchronous(self.wait_for)
        buffer = 3 if self.buffer is None and self.ratio is None else self.buffer
        return federated.Asynchronous(self.local, self.server_lr, buffer, self.ratio, self.window)

    def make(self, at: At, folder: Path) -> None:
        clients, forward, body = self.gathered(at), self.work(at), at.base
        models = []
        for task in at.suite.tasks:
            network = Joined(at.body(body), [task])
            work = federated.work_of([task.name], forward, self.local)
            models.append(Model(task.name, network, work, network.vector()))
        groups = [[model] for model in models] if self.federate == "sequential" else [models]
        stages = list[Stage]()
        for number, group in enumerate(groups):
            file = folder / "run" / f"stage-{number}.safetensors"
            now = stages[-1].clock.now if stages else 0.0
            stages.append(self.stage(at, group, clients, self.policy, file, now=now))
            stages[-1].run()
        finish(self, at, folder, stages, models)


def finish(way: Federated, at: At, folder: Path, stages: Sequence[Stage], models: Sequence[Model]) -> None:
    """Write models, and what came of them when; the saves are not kept.

    Args:
        way: that they were made by.
        at: where it stands.
        folder: the way's.
        stages: one after another.
        models: those that answer, each for its tasks.
    """
    index = {}
    for number, model in enumerate(models):
        model.network.fill(model.theta)
        place = folder / "models" / f"{number}"
        heads = model.network.save(place, folder / "heads" / f"{number}")
        index |= {
            task: {"model": str(place.relative_to(folder)), "head": str(head.relative_to(folder))}
            for task, head in heads.items()
        }
    write_json(index, folder / INDEX)
    reached: dict[str, float] = {}
    for stage in stages:
        for model in stage.models:
            reached = model.reached | reached
    told = {
        "targets": way.targets(at.suite),
        "reached": {task.name: reached.get(task.name) for task in at.suite.tasks},
        "end": stages[-1].clock.now,
        "updates": sum(stage.arrivals for stage in stages),
        "groups": [model.tasks for model in models],
        "curve": [
            {"task": r.task, "time": r.time, "value": r.value, "received": r.received}
            for stage in stages
            for r in stage.records
        ],
    }
    write_json(told, folder / SIMULATED)
    if (folder / "run").is_dir():  # models that are good enough at the start train nothing and save nothing
        shutil.rmtree(folder / "run")

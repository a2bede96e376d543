"""Merge and split (MAS): tasks begin together, and go on in groups of those that help each other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from plait.errors import InputError
from plait.study import federated
from plait.study._whole import write_json
from plait.study.federated import Affinities, Clients, Joined, Model
from plait.study.ways._federated import Federated, finish
from plait.tasks import Suite

if TYPE_CHECKING:
    from plait.study._at import At
    from plait.study._document import StudyDocument

#: Affinities and groups, in a way's folder.
GROUPS = "groups.json"


class Split(Federated):
    """`split: GROUPS`: one model of all tasks takes the share `merged` of the `requests`, then each group's
    model goes on from there with the rest, one group after another. Zhuang et al., arXiv:2307.11285.

    In one of `probe_every` local batches of the first part it is found how much each task's step helps the
    others, so targets don't end it. All of it is FedAvg, in rounds of all active requests.
    """

    split: int = Field(ge=1)
    merged: float = Field(default=0.7, gt=0, lt=1)
    probe_every: int = Field(default=10, ge=1)

    @property
    def method(self) -> str:
        return "arXiv:2307.11285"

    def problems(self, study: StudyDocument, where: str) -> list[InputError]:
        problems = []
        if self.probe_every > self.local_steps:
            what = f"of {self.local_steps} local steps none is a {self.probe_every}th, so nothing is probed"
            problems.append(InputError(what, where=where, hint="lower `probe_every`, or raise `local_steps`"))
        if self.active > self.clients:
            what = f"a round can't ask {self.active} of {self.clients} clients"
            problems.append(InputError(what, where=where, hint="raise `clients`, or lower `active`"))
        if self.requests < 2:
            problems.append(InputError("`requests` of 1 can't be shared by two parts", where=where))
        return problems

    def problems_of_suite(self, suite: Suite, where: str) -> list[InputError]:
        problems, count = super().problems_of_suite(suite, where), len(suite.tasks)
        if not 1 <= self.split <= count:
            problems.append(InputError(f"{count} tasks can't be split into {self.split} groups", where=where))
        if count > federated.MOST_TASKS:
            what = f"the best groups of {count} tasks would take too long to find"
            hint = f"name at most {federated.MOST_TASKS} `tasks`"
            problems.append(InputError(what, where=where, hint=hint))
        if self.batch_size < count:
            what = f"a batch of {self.batch_size} can't be shared by {count} tasks"
            problems.append(InputError(what, where=where, hint="raise `batch_size`"))
        return problems

    def make(self, at: At, folder: Path) -> None:
        clients, forward = self.gathered(at), self.work(at)
        names = [task.name for task in at.suite.tasks]
        _check_meeting(clients, names)
        together = Joined(at.body(at.base), at.suite.tasks)
        work = federated.work_of(names, forward, self.local, self.probe_every)
        whole = Model("merged", together, work, together.vector())
        affinities = Affinities(names, self.probe_every, self.local)
        first = max(1, min(self.requests - 1, round(self.merged * self.requests)))
        stages = [
            self.stage(
                at, [whole], clients, federated.Synchronous(), folder / "run" / "merged.safetensors",
                limit=first, affinities=affinities, ends=False,
            )
        ]  # fmt: skip
        stages[0].run()
        found = affinities.mean()
        groups = federated.best_groups(found, self.split)
        plain = [[value if math.isfinite(value) else None for value in row] for row in found.tolist()]
        told = {"affinity": plain, "groups": [[names[n] for n in group] for group in groups]}
        write_json(told, folder / GROUPS)
        together.fill(whole.theta)
        models = []
        for number, group in enumerate(groups):
            models.append(self._group(at, number, [names[n] for n in group], together, forward))
            file, now = folder / "run" / f"group-{number}.safetensors", stages[-1].clock.now
            limit = self.requests - first
            stages.append(
                self.stage(at, models[-1:], clients, federated.Synchronous(), file, limit=limit, now=now)
            )
            stages[-1].run()
        finish(self, at, folder, stages, models)

    def _group(
        self, at: At, number: int, tasks: list[str], together: Joined, forward: dict[str, float]
    ) -> Model:
        """A group's model, with the weights that all tasks had together."""
        network = Joined(at.body(at.base), [at.suite[task] for task in tasks])
        network.take(together)
        work = federated.work_of(tasks, forward, self.local)
        return Model(f"group {number + 1}", network, work, network.vector())


def _check_meeting(clients: Clients, tasks: list[str]) -> None:
    """Nothing if for each two tasks some client has examples of both."""
    for place, one in enumerate(tasks):
        for other in tasks[place + 1 :]:
            pairs = zip(clients.shards[one], clients.shards[other], strict=True)
            if not any(len(rows) and len(others) for rows, others in pairs):
                what = f"no client has examples of both `{one}` and `{other}`, so they can't be compared"
                raise InputError(what, hint="give a larger `alpha`, or fewer `clients`")

"""A study's steps, each with all that its results depend on."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from blake3 import blake3

from plait.checkpoint import content_hash, open_model
from plait.study import _fixed, _score, _tuning
from plait.study._at import BASE, SIMILARITY, At, bounded, branched, made, scored, trained
from plait.study._branches import branch, needed, splits_of_start
from plait.study._facts import of_network, of_part, of_task
from plait.study._steps import Step
from plait.study._study import Study
from plait.study._training import joined, seen
from plait.study.ways import Way

#: Task → all that is known of its data, loss, metric and head.
Data = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Inputs:
    """What a study begins with, as facts.

    Args:
        data: of its tasks.
        base: its network, and what becomes of it before experts are trained.
    """

    data: Data
    base: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """The same for the same data and base, wherever they lie."""
        return blake3(json.dumps([self.data, self.base], sort_keys=True).encode()).hexdigest()


def inputs_of(study: Study) -> Inputs:
    """Read what a study begins with."""
    data = {task.name: of_task(task) for task in study.suite.tasks}
    return Inputs(data, {"network": of_network(study.suite.base()), **_of_base(study, data)})


def planned(study: Study, inputs: Inputs | None = None) -> list[Step]:
    """The steps, each after those it needs.

    Args:
        study: whose they are.
        inputs: its own, if they were read already.
    """
    held = inputs or inputs_of(study)
    data, base = held.data, held.base
    steps = [Step(BASE, base, _work(study, study.seeds[0], BASE, _fixed.base))]
    for seed in study.seeds:
        steps += _of_seed(study, seed, data)
    return steps


def _work(study: Study, seed: int, name: str, work: Callable[[At, Path], None]) -> Any:
    """Does a step's work, once it is known where the steps before it are."""
    return lambda folder, needs: work(At(study, seed, name, needs), folder)


def _of_base(study: Study, data: Data) -> dict[str, Any]:
    if study.base is None:
        return {}
    if isinstance(study.base, str):
        return {"checkpoint": content_hash(open_model(study.base))}
    settings = joined(study.experts, study.base.settings)
    learned = {task: data[task] for task in data if task in (study.base.tasks or data)}
    return {
        **_in_order(learned, seen(settings)),
        "tasks": study.base.tasks,
        "settings": settings,
        "seed": study.seeds[0],
    }


def _in_order(data: Data, splits: Collection[str]) -> dict[str, Any]:
    """Some splits as facts, with the order of tasks, which these lack: models are trained and named by it."""
    return {"data": {task: of_part(own, splits) for task, own in data.items()}, "order": list(data)}


def _of_seed(study: Study, seed: int, data: Data) -> list[Step]:
    measured = {"split": study.split, "pictures": study.pictures, **_in_order(data, [study.split])}
    experts = _of_experts(study, seed, data)
    fleet = [step.name for step in experts]

    def step(name: str, facts: Mapping[str, Any], work: Callable[[At, Path], None], *needs: str) -> Step:
        return Step(name, facts, _work(study, seed, name, work), needs)

    def score(
        model: str, work: Callable[[At, Path], None], *needs: str, facts: Mapping[str, Any] | None = None
    ) -> Step:
        return Step(
            scored(model, seed), {**measured, **(facts or {})}, _work(study, seed, model, work), needs
        )

    steps = [
        *experts,
        score("experts", _score.experts, *fleet),
        score(BASE, _score.base, BASE, *fleet),
    ]
    if seed == study.seeds[0]:
        steps.append(step(SIMILARITY, {"order": list(data)}, _fixed.similarity, BASE, *fleet))
    if any(way.tuned for way in study.ways.values()):
        facts = {"split": study.tuning.split, **_in_order(data, [study.tuning.split])}
        steps.append(step(bounded(seed), facts, _fixed.bounds, *fleet))
    for name, way in study.ways.items():
        steps += _of_way(study, seed, name, way, data, fleet, score)
    return steps


def _of_experts(study: Study, seed: int, data: Data) -> list[Step]:
    """What trains experts: a fleet, and one step for each that starts from others."""
    facts = {"seed": seed, "settings": dict(study.experts), "backend": study.backend}
    tasks, fleet, splits = list(data), trained(seed), seen(study.experts)
    own = _in_order({task: data[task] for task in tasks if task not in study.branch}, splits)
    steps = [Step(fleet, facts | own, _work(study, seed, fleet, _fixed.experts), (BASE,))]
    for task, start in study.branch.items():
        name, needs = branched(task, seed), (BASE, *needed(task, study.branch, tasks, seed))
        work = _work(study, seed, name, partial(branch, task))
        part = of_part(data[task], {*splits, *splits_of_start(start)})
        steps.append(Step(name, facts | {"start": _plain(start), "data": part}, work, needs))
    return steps


def _of_way(
    study: Study,
    seed: int,
    name: str,
    way: Way,
    data: Data,
    fleet: Sequence[str],
    score: Callable[..., Step],
) -> list[Step]:
    """What makes a way and what measures it."""
    own = made(name, seed)

    def measured(at: At, folder: Path) -> None:
        _score.way(way, at, folder)

    facts = {"way": _of_kind(way), "seed": seed, **way.facts(At(study, seed, name, {}))}
    splits = {split for setting in way.grid for split in way.variant(setting).splits(study)}
    if way.tuned:
        facts["tuning"] = study.tuning.split
        splits.add(study.tuning.split)
    if not way.makes:
        return [score(name, measured, BASE, *fleet, facts=facts)]
    needs = (BASE, *(fleet if way.of_experts else []), *([bounded(seed)] if way.tuned else []))
    return [
        Step(
            own, facts | _in_order(data, splits), _work(study, seed, name, partial(_tuning.make, way)), needs
        ),
        score(name, measured, BASE, *fleet, own),
    ]


def _of_kind(way: Way) -> dict[str, Any]:
    return {"kind": type(way).__name__, **_plain(way.model_dump())}


def _plain(value: Any) -> Any:
    """Values that JSON keeps apart."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value

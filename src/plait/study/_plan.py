"""A study's steps, each with all that its results depend on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from plait.checkpoint import content_hash, open_model
from plait.study import _score, _train, _weave
from plait.study._models import trained
from plait.study._steps import Step
from plait.study._study import Study
from plait.tasks import Task, digest, in_memory

Work = Callable[[Path, Mapping[str, Path]], None]
BASE, SIMILARITY = "base", "similarity"


def planned(study: Study) -> list[Step]:
    """The steps, each after those it needs."""
    data = {task.name: _of_task(task) for task in study.suite.tasks}
    steps = [
        Step(BASE, {"weights": _of_weights(study.suite.base()), "data": data}, partial(_train.base, study))
    ]
    for seed in study.seeds:
        steps += _of_seed(study, seed)
    return steps


def made(way: str, seed: int) -> str:
    """The step that makes a way's model."""
    return f"{way} @{seed}"


def scored(model: str, seed: int) -> str:
    """The step that measures a model."""
    return f"score {model} @{seed}"


def _of_seed(study: Study, seed: int) -> list[Step]:
    fleet = trained(seed)
    facts: dict[str, Any] = {"seed": seed, "settings": dict(study.experts), "backend": study.backend}
    tuned = {"budget": study.tuning.budget, "split": study.tuning.split}
    measured = {"split": study.split, "pictures": study.pictures}

    def score(model: str, work: Work, *needs: str) -> Step:
        return Step(scored(model, seed), measured, work, needs)

    steps = [
        Step(fleet, facts, partial(_train.experts, study, seed), (BASE,)),
        score("experts", partial(_score.alone, study, seed), fleet),
        score(BASE, partial(_score.one, study, BASE, seed), BASE, fleet),
    ]
    if seed == study.seeds[0]:
        steps.append(Step(SIMILARITY, {}, partial(_weave.similarity, seed), (BASE, fleet)))
    for way in study.ways:
        name = made(way.name, seed)
        own = {"way": _plain(asdict(way)), "seed": seed}
        if way.kind == "merge":
            split = tuned["split"] if len(way.grid) > 1 else None
            work = partial(_weave.woven, study, way, seed)
            steps.append(Step(name, own | {"split": split}, work, (BASE, fleet)))
        elif way.kind == "train":
            steps.append(Step(name, own, partial(_train.joint, study, way, seed), (BASE,)))
        else:
            steps.append(score(way.name, partial(_score.together, study, seed), fleet))
            continue
        steps.append(score(way.name, partial(_score.one, study, name, seed), name, fleet))
    return steps


def _plain(value: Any) -> Any:
    """Values that JSON keeps apart."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _of_task(task: Task) -> dict[str, Any]:
    """A task's data, loss, metric, head, and how it meets a body."""
    splits = {name: digest(each) if in_memory(each) else len(each) for name, each in task.splits.items()}
    head = None if task.head is None else f"{task.head} {_of_weights(task.head)}"
    kinds = {"loss": repr(task.loss), "metric": task.metric.name, "meet": repr(task.meet)}
    return {"splits": splits, "head": head, **kinds}


def _of_weights(network: nn.Module) -> str:
    """A digest of weights and buffers."""
    state = network.state_dict()
    return content_hash(open_model(state)) if state else ""

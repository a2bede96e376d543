"""Steps that merge: settings tried on validation data, the best one written; and how experts differ."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plait.checkpoint import open_model
from plait.engine import merge
from plait.errors import PlaitWarning
from plait.methods import METHODS
from plait.study._models import body, experts, filled, on_task
from plait.study._study import Study, Way
from plait.tasks import Task, measure

#: What was tried: setting, validation score of each task, and whether it was taken.
TRIALS = "trials.json"
SIMILARITY = "similarity.npz"


def woven(study: Study, way: Way, seed: int, folder: Path, needs: Mapping[str, Path]) -> None:
    """A merge of the experts; with several settings, that of the best mean share of the experts' scores."""
    heads = experts(needs, seed)
    bounds = _bounds(study, heads) if len(way.grid) > 1 else {}
    trials: list[dict[str, Any]] = []
    for setting in way.grid if len(way.grid) > 1 else ():
        network = filled(study.suite, _merge(way, setting, heads, needs["base"], seed, None))
        scores = {t.name: _validated(study, network, t, heads) for t in study.suite.tasks}
        shares = [_share(t, scores[t.name], bounds[t.name]) for t in study.suite.tasks]
        trials.append({"setting": dict(setting), "scores": scores, "value": float(np.mean(shares))})
    best = max(range(len(trials)), key=lambda i: _or_least(trials[i]["value"]), default=0)
    for place, trial in enumerate(trials):
        trial["chosen"] = place == best
    _merge(way, way.grid[best], heads, needs["base"], seed, folder / "model")
    (folder / TRIALS).write_text(json.dumps(trials, indent=1) + "\n", encoding="utf-8")


def _merge(
    way: Way, setting: Mapping[str, Any], heads: Mapping[str, Path], base: Path, seed: int, out: Path | None
) -> Any:
    options = {**way.options, **setting}
    own = str(base / "model") if METHODS[way.method].base != "unused" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PlaitWarning)
        models = {task: str(path) for task, path in heads.items()}
        return merge(models, base=own, method=way.method, out=out, seed=seed, **options)


def _bounds(study: Study, heads: Mapping[str, Path]) -> dict[str, float]:
    """Task → its own expert's score on the split that settings are chosen by."""
    return {
        task.name: _validated(study, body(study.suite, heads[task.name]), task, heads)
        for task in study.suite.tasks
    }


def _validated(study: Study, network: torch.nn.Module, task: Task, heads: Mapping[str, Path]) -> float:
    added, _ = measure(on_task(network, task, heads), task, study.tuning.split)
    return float(task.metric.summary(added.sum(0)))


def _share(task: Task, score: float, bound: float) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.divide(score, bound) if task.metric.higher_is_better else np.divide(bound, score))


def _or_least(value: float) -> float:
    return -np.inf if np.isnan(value) else value


def similarity(seed: int, folder: Path, needs: Mapping[str, Path]) -> None:
    """Cosines of the experts' task vectors, and for each layer the share of signs against the majority."""
    start = open_model(str(needs["base"] / "model"))
    models = {task: open_model(str(path)) for task, path in experts(needs, seed).items()}
    products = np.zeros((len(models), len(models)))
    minority: dict[str, list[float]] = {}
    for name in start:
        first = start[name].read()
        if not first.is_floating_point():
            continue
        deltas = torch.stack(
            [(each[name].read().double() - first.double()).flatten() for each in models.values()]
        )
        products += (deltas @ deltas.T).numpy()
        up, down = (deltas > 0).sum(0), (deltas < 0).sum(0)
        held = minority.setdefault(_layer(name), [0.0, 0.0])
        held[0] += float(torch.minimum(up, down).sum())
        held[1] += float((up + down).sum())
    norms = np.sqrt(np.diag(products))
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = np.nan_to_num(products / norms / norms[:, None])
    layers = [name for name, (_, moved) in minority.items() if moved]
    conflict = np.array([minority[name][0] / minority[name][1] for name in layers])
    np.savez(folder / SIMILARITY, names=np.array(list(models)), cosine=cosine, layers=np.array(layers),
             conflict=conflict)  # fmt: skip


def _layer(name: str) -> str:
    """A tensor's layer: its name without the last part (`weight`, `bias`)."""
    return name.rpartition(".")[0] or name

"""Steps that every study has: the base as it is, an expert for each task, and how experts differ."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

from plait.checkpoint import load_into, open_model
from plait.study._at import BOUNDS, At
from plait.study._training import fit, fit_one, joined, write_index
from plait.study._whole import write_json
from plait.tasks import save_network

#: Cosines and conflicts, in the folder of the step that computed them.
DIFFERENCES = "similarity.npz"


def base(at: At, folder: Path) -> None:
    """The base as a checkpoint: the suite's own, another one, or what the suite's learns from all tasks."""
    wanted = at.study.base
    if wanted is None:
        save_network(at.suite.base(), folder / "model")
    elif isinstance(wanted, str):
        save_network(load_into(at.suite.base(), open_model(wanted)), folder / "model")
    else:
        save_network(at.suite.base(), folder / "start")
        settings = joined(at.study.experts, wanted.settings)
        tasks = wanted.tasks or [task.name for task in at.suite.tasks]
        fit_one(at, tasks, settings, folder, start=folder / "start")


def experts(at: At, folder: Path) -> None:
    """A fleet with a member for each task whose expert starts from the base."""
    tasks = {task.name: task for task in at.suite.tasks if task.name not in at.study.branch}
    write_index(fit(at, tasks, at.study.experts, folder, backend=at.study.backend), folder)


def bounds(at: At, folder: Path) -> None:
    """Each expert on the split of its own task that settings are chosen by."""
    found = {}
    for task in at.suite.tasks:
        network = at.on_task(at.body(at.experts[task.name]), task)
        found[task.name] = at.measured(network, task, at.study.tuning.split)
    write_json(found, folder / BOUNDS)


def similarity(at: At, folder: Path) -> None:
    """Cosines of the experts' task vectors, and for each layer the share of signs against the majority."""
    start = open_model(str(at.base))
    models = {task: open_model(str(path)) for task, path in at.experts.items()}
    products = np.zeros((len(models), len(models)))
    minority: dict[str, list[float]] = {}
    for name in sorted(start, key=_places):
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
    np.savez(folder / DIFFERENCES, names=np.array(list(models)), cosine=cosine, layers=np.array(layers),
             conflict=conflict)  # fmt: skip


def _places(name: str) -> list[str | int]:
    """Sorts `layers.3` before `layers.10`: text and numbers in turns."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _layer(name: str) -> str:
    """A tensor's layer: its name without the last part (`weight`, `bias`)."""
    return name.rpartition(".")[0] or name

"""Scores of models on a suite's tasks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from plait.errors import InputError, nearest
from plait.numerics import torch_threads
from plait.tasks._bootstrap import draws, interval
from plait.tasks._brought import Brought
from plait.tasks._examples import Examples, digest
from plait.tasks._gather import check_asked
from plait.tasks._metrics import Floats
from plait.tasks._mixed import in_memory
from plait.tasks._network import Model, at_rest, named_models, network, untrained, with_head
from plait.tasks._pass import numbers
from plait.tasks._saved import head_folders
from plait.tasks._scores import Evidence, Score, Scores
from plait.tasks._suite import Suite
from plait.tasks._task import SPLITS, Headed, Task
from plait.tasks.suites import load_suite

Heads = Mapping[str, Any] | str | os.PathLike[str]
#: (model, task) → what each example adds to the metric, `(n, k)`, and for how many the model gave NaN.
Measured = dict[tuple[str, str], tuple[Floats, int]]


def evaluate(
    models: Model | Sequence[Model] | Mapping[str, Model],
    suite: Suite | Task | str | os.PathLike[str],
    *,
    split: str = "test",
    tasks: Sequence[str] | None = None,
    heads: Heads | None = None,
    data: str | Path | None = None,
    batch_size: int = 256,
    bootstrap: int = 1000,
    seed: int = 0,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    threads: int | None = None,
) -> Scores:
    """Score models on tasks, with 95 % intervals by bootstrap over examples.

    A module is scored as it is; a checkpoint fills the suite's base, in the base's type. Bodies are scored
    with each task's own head: that which the model of this task brings, where one of the models does (as a
    fleet's members do, or one with a head that is called like the task). Modules are not changed.

    Args:
        models: a module, a checkpoint (`plait.open`), a state dict, or a path or hub id; or several, in a
            list or by name, or a fleet.
        suite: a suite, its name or YAML file, or a single task.
        split: which part of each task.
        tasks: which of the suite's tasks; all if None. Others of a suite that is named are not even made.
        heads: task → head: a module, a body with its head (as fleets give), or a folder with
            `head.safetensors`; or a folder with such a folder for each task. A task that has none here is
            scored with that of the models given, or else with the head that it brings.
        data: a folder where the data sets of a suite that is named are looked for first.
        batch_size: examples at a time; does not change scores beyond rounding.
        bootstrap: how often examples are drawn for the intervals; 0 for none. All models get the same draws.
        seed: of the draws.
        device: where to compute (`cuda`); where a module is, if None.
        dtype: in which type to compute; a module's or the base's own, if None.
        threads: how many torch computes with; as it is set, if None.

    Returns:
        one row for each model and task, and the suite's missing tasks. A model that gives NaN has the
        score NaN.

    Raises:
        InputError: a model is no model or of another architecture; a suite, task or split is not there; a
            label is out of its head's range; a head is not there, or several models bring one.
    """
    check_numbers(batch_size=(batch_size, 1), bootstrap=(bootstrap, 0), seed=(seed, 0))
    check_device(device)
    named = named_models(models)
    check_asked(tasks)
    whole = _suite(suite, data, tasks)
    chosen = [whole[name] for name in dict.fromkeys(tasks)] if tasks is not None else list(whole.tasks)
    _check_split(chosen, split)
    brought, alone = Brought(named, whole, _heads(heads, whole)), len(chosen) == 1
    met = {(name, task.name): brought.head(name, task, alone=alone) for name in named for task in chosen}
    measured: Measured = {}
    if threads is not None:
        check_numbers(threads=(threads, 1))
    with torch_threads(threads):
        for name, model in named.items():
            base = None if isinstance(suite, Task) else whole.base
            built = network(model, base, device=device, dtype=dtype)
            measured |= _scored(name, built, chosen, brought, split, batch_size)
            del built
    found = tabulate(list(named), whole.name, chosen, measured, bootstrap, seed)
    prints = {task.name: _fingerprint(task.split(split)) for task in chosen}
    missing = dict(whole.missing) if tasks is None else {}
    bare = [name for name, model in named.items() if not isinstance(model, Headed)]
    blank = tuple(task.name for task in chosen if any(untrained(task, met[name, task.name]) for name in bare))
    return replace(
        found, missing=missing, untrained=blank, data={task: each for task, each in prints.items() if each}
    )


def _scored(
    name: str, model: nn.Module, tasks: Sequence[Task], brought: Brought, split: str, batch_size: int
) -> Measured:
    """What each task's examples add, and for how many of them the model gave NaN."""
    found: Measured = {}
    alone = len(tasks) == 1
    for task in tasks:
        head, own = brought.head(name, task, alone=alone), brought.own(name, task, alone=alone)
        headed = with_head(model, task, head, own=own, where=f"model `{name}`")
        where = f"model `{name}`, task `{task.name}`"
        found[name, task.name] = measure(headed, task, split, batch_size=batch_size, where=where)
    return found


def measure(
    model: nn.Module, task: Task, split: str, *, batch_size: int = 256, where: str | None = None
) -> tuple[Floats, int]:
    """What each example adds to a task's metric, `(n, k)`, and for how many the model gave NaN.

    Args:
        model: with the task's head; its modes are as before afterwards.
        task: what is measured.
        split: on which of its examples.
        batch_size: examples at a time.
        where: for messages; the task if None.

    Raises:
        InputError: the model can't take the task's batches, or there is no such split.
    """
    where = f"task `{task.name}`" if where is None else where
    with at_rest(model):
        added, broken = numbers(model, task, split, batch_size=batch_size, where=where)
    return added, int(broken.sum())


def tabulate(
    models: Sequence[str], suite: str, tasks: Sequence[Task], measured: Measured, bootstrap: int, seed: int
) -> Scores:
    """A table of scores from what examples add, with intervals: all models get the same draws.

    Args:
        models: their names.
        suite: its name.
        tasks: those measured.
        measured: for every model and task.
        bootstrap: how often examples are drawn; 0 for no intervals.
        seed: of the draws.
    """
    rows, evidence = {}, {}
    for task in tasks:
        added = [measured[model, task.name][0] for model in models]
        drawn = draws(added, task.metric.summary, task.name, resamples=bootstrap, seed=seed)
        for model, each, moved in zip(models, added, drawn, strict=True):
            value = float(task.metric.summary(each.sum(0)))
            low, high = interval(moved)
            kind = task.semi_synthetic, task.metric.higher_is_better, measured[model, task.name][1]
            row = Score(model, suite, task.name, task.metric.name, value, len(each), low, high, *kind)
            rows[model, task.name] = row
            evidence[row.key] = Evidence(each, task.metric.summary, moved)
    ordered = tuple(rows[model, task.name] for model in models for task in tasks)
    return Scores(ordered, {}, evidence, bootstrap, seed)


def _fingerprint(examples: Examples) -> str:
    """A fingerprint of examples in memory; none of those that would have to be made again."""
    return digest(examples) if in_memory(examples) else ""


def _suite(
    suite: Suite | Task | str | os.PathLike[str], data: str | Path | None, tasks: Sequence[str] | None
) -> Suite:
    if isinstance(suite, Suite):
        return suite
    if isinstance(suite, Task):
        return Suite(suite.name, (suite,), _no_base)
    if isinstance(suite, str | os.PathLike):
        return load_suite(suite if isinstance(suite, str) else Path(suite), data, tasks=tasks)
    raise InputError(f"a {type(suite).__name__} is no suite", hint="give a Suite, a Task, or a suite's name")


def _no_base() -> nn.Module:
    raise AssertionError("a task alone has no base")


def _heads(heads: Heads | None, suite: Suite) -> dict[str, Any]:
    """Task → head, of what a user gives."""
    if heads is None:
        return {}
    if isinstance(heads, str | os.PathLike):
        places = {t.name: head_folders(Path(heads), t.name) for t in suite.tasks if t.head is not None}
        return {name: next((each for each in of if each.is_dir()), of[0]) for name, of in places.items()}
    if not isinstance(heads, Mapping):
        raise InputError(f"a {type(heads).__name__} is no heads", hint="give a mapping of tasks to heads")
    for name in heads:
        if name not in suite.missing and name not in suite.left_out:
            suite[name]
    return dict(heads)


def _check_split(tasks: Sequence[Task], split: str) -> None:
    if split not in SPLITS:
        raise InputError(f"`{split}` is no split", hint=nearest(split, SPLITS))
    for task in tasks:
        task.split(split)


def check_numbers(**given: tuple[int, int]) -> None:
    """Nothing if each value, the first of a pair, is a whole number and not below the second."""
    for name, (value, low) in given.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
            raise InputError(f"`{name}` is {value!r}", hint=f"give a whole number from {low} on")


def check_device(device: str | None) -> None:
    """Nothing if there is such a device."""
    if device is None:
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"there is no device `{device}`: {reason}", hint="cpu, cuda, cuda:1, …") from error

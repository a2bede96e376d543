"""A member's score on its task's validation split, and whether it learns from anything."""

from __future__ import annotations

import math

import torch
from torch import nn

from plait.fleet._noise import seed_noise
from plait.fleet._trainee import Trainee
from plait.numerics import stream_key
from plait.tasks import Metric, Task, measure


def validate(network: nn.Module, task: Task, *, seed: int = 0, where: str | None = None) -> float:
    """The task's metric of a network on its validation split, NaN if an output is.

    Args:
        network: with the task's head; its modes stay as they were.
        task: with a split `validation`.
        seed: of what its examples draw (augmentation), the same at each validation.
        where: for messages; the task if None.
    """
    seed_noise(stream_key(seed, "examples", "validation")[0])
    added, _ = measure(network, task, "validation", where=where)
    return float(task.metric.summary(added.sum(0)))


def better(value: float, held: float | None, metric: Metric) -> bool:
    """Whether a validation is better than the best so far; NaN is the worst."""
    if held is None or math.isnan(held):
        return held is None or not math.isnan(value)
    return value > held if metric.higher_is_better else value < held


def counts(trainee: Trainee, network: nn.Module) -> bool:
    """Whether an example of a member's next step has a weight; also if that can't be seen."""
    task = trainee.task
    try:
        with torch.no_grad():
            batches = (trainee.batch(number) for number in range(trainee.member.accumulate))
            return any(bool(task.loss(task.outputs(network, batch), batch)[1].any()) for batch in batches)
    except Exception:  # it is asked for an error's words alone
        return True

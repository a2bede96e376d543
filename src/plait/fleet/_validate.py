"""A member's score on its task's validation split."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from plait.tasks import TASK, Batch, CrossEntropy, Metric, Task, broken, check_labels, known_labels


def validate(network: nn.Module, task: Task, *, split: str = "validation", batch_size: int = 256) -> float:
    """The task's metric of a network on a split, NaN if an output is; the network's mode stays as it was."""
    examples = task.split(split)
    device = next(network.parameters()).device
    known = isinstance(task.loss, CrossEntropy) and known_labels(examples, task.loss.label) is not None
    was = network.training
    network.eval()
    sums: torch.Tensor | None = None
    try:
        with torch.no_grad():
            for start in range(0, len(examples), batch_size):
                rows = range(start, min(start + batch_size, len(examples)))
                taken = examples.batch(rows)
                batch = {name: column.to(device) for name, column in taken.items()}
                outputs = task.outputs(network, batch)
                if not known and isinstance(outputs, torch.Tensor):
                    where = f"task `{task.name}`, split `{split}`"
                    check_labels(task.loss, taken, outputs.shape[-1], where, rows)
                added = task.metric.numbers(outputs, batch).double()
                part = added.masked_fill(_broken(outputs, added, batch)[:, None], math.nan).sum(0)
                sums = part if sums is None else sums + part
    finally:
        network.train(was)
    assert sums is not None
    return float(task.metric.summary(sums.cpu().numpy()))


def better(value: float, held: float | None, metric: Metric) -> bool:
    """Whether a validation is better than the best so far; NaN is the worst."""
    if held is None or math.isnan(held):
        return held is None or not math.isnan(value)
    return value > held if metric.higher_is_better else value < held


def _broken(outputs: Any, added: Tensor, batch: Batch) -> Tensor:
    """Which examples have no number; of a mixture's heads, each example's own counts."""
    if not isinstance(outputs, tuple) or TASK not in batch:
        return broken(outputs, added)
    own = [broken(each, added) & (batch[TASK] == place) for place, each in enumerate(outputs)]
    return torch.stack(own).any(0)

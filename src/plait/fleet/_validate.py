"""A member's score on its task's validation split."""

from __future__ import annotations

import torch
from torch import nn

from plait.tasks import CrossEntropy, Task, check_labels, known_labels


def validate(network: nn.Module, task: Task, *, split: str = "validation", batch_size: int = 256) -> float:
    """The task's metric of a network on a split; the network's mode is as before afterwards."""
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
                part = task.metric.numbers(outputs, batch).sum(0)
                sums = part if sums is None else sums + part
    finally:
        network.train(was)
    assert sums is not None
    return float(task.metric.summary(sums.double().cpu().numpy()))

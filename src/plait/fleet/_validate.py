"""A member's score on its task's validation split."""

from __future__ import annotations

import torch
from torch import nn

from plait.tasks import Task


def validate(network: nn.Module, task: Task, *, split: str = "validation", batch_size: int = 256) -> float:
    """The task's metric of a network on a split; the network's mode is as before afterwards."""
    examples = task.split(split)
    device = next(network.parameters()).device
    was = network.training
    network.eval()
    sums: torch.Tensor | None = None
    try:
        with torch.no_grad():
            for start in range(0, len(examples), batch_size):
                batch = examples.batch(range(start, min(start + batch_size, len(examples))))
                batch = {name: column.to(device) for name, column in batch.items()}
                part = task.metric.numbers(task.outputs(network, batch), batch).sum(0)
                sums = part if sums is None else sums + part
    finally:
        network.train(was)
    assert sums is not None
    return float(task.metric.summary(sums.double().cpu().numpy()))

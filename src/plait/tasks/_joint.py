"""What a mixture's tasks keep of their own: heads, losses and metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plait.tasks._copied import copied
from plait.tasks._examples import Batch
from plait.tasks._losses import TASK, Loss
from plait.tasks._metrics import Floats, Metric
from plait.tasks._task import Task


class Heads(nn.Module):
    """The heads of a mixture's tasks, all called with the same features.

    Args:
        tasks: whose heads; those that have none let the body's outputs through.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.names = tuple(task.name for task in tasks)
        self.each = nn.ModuleList(
            [nn.Identity() if task.head is None else copied(task.head) for task in tasks]
        )

    def forward(self, features: Any) -> tuple[Any, ...]:
        return tuple(head(features) for head in self.each)

    def of(self, task: str) -> nn.Module:
        """A task's head.

        Raises:
            ValueError: the mixture has no such task.
        """
        return self.each[self.names.index(task)]

    def named(self) -> Iterator[tuple[str, nn.Module]]:
        """Tasks and their heads, where they have one."""
        return ((n, h) for n, h in zip(self.names, self.each, strict=True) if not isinstance(h, nn.Identity))


@dataclass(frozen=True)
class MixedLoss:
    """Each example's own task's loss.

    Args:
        losses: of the tasks, in the mixture's order.
        headed: whether outputs are one for each task, as `Heads` gives them.
    """

    losses: tuple[Loss, ...]
    headed: bool
    pads_classes: bool = False

    def __call__(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        values, weights = [], []
        for place, loss in enumerate(self.losses):
            own = outputs[place] if self.headed else outputs
            mine = batch[TASK] == place
            value, weight = loss(own, _own(batch, loss, mine))
            values.append(torch.where(mine, value, 0.0))
            weights.append(torch.where(mine, weight, 0.0))
        # All but one of them are 0, so that the sum is exact.
        return torch.stack(values).sum(0), torch.stack(weights).sum(0)


def _own(batch: Batch, loss: Loss, mine: Tensor) -> Batch:
    """A batch where other tasks' examples have the label 0, which every head has an output for."""
    label = getattr(loss, "label", None)
    if label not in batch:
        return batch
    held = batch[label]
    wide = mine.view(-1, *[1] * (held.dim() - 1))
    return batch | {label: torch.where(wide, held, 0)}


class _Mean:
    """The mean over tasks of their metrics; of those that have an example."""

    def __init__(self, metrics: Sequence[Metric], headed: bool, losses: Sequence[Loss]) -> None:
        self.metrics, self.headed, self.losses = list(metrics), headed, list(losses)
        #: How many numbers each metric adds, which shows when it is first asked.
        self.widths: list[int] = []

    def numbers(self, outputs: Any, batch: Batch) -> Tensor:
        found = []
        for place, (metric, loss) in enumerate(zip(self.metrics, self.losses, strict=True)):
            mine = batch[TASK] == place
            added = metric.numbers(outputs[place] if self.headed else outputs, _own(batch, loss, mine))
            found.append(added.double().masked_fill(~mine.unsqueeze(1), 0.0))
        self.widths = [each.shape[1] for each in found]
        return torch.cat(found, dim=1)

    def summary(self, sums: Floats) -> Floats:
        parts = np.split(sums, np.cumsum(self.widths)[:-1], axis=-1)
        scores = np.stack([m.summary(part) for m, part in zip(self.metrics, parts, strict=True)])
        there = np.stack([(part != 0).any(-1) for part in parts])
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(there, scores, 0.0).sum(0) / there.sum(0)


def mean_metric(metrics: Sequence[Metric], headed: bool, losses: Sequence[Loss]) -> Metric:
    """The mean over tasks of their metrics, each of its own examples."""
    first, mean = metrics[0], _Mean(metrics, headed, losses)
    names = list(dict.fromkeys(metric.name for metric in metrics))
    name = names[0] if len(names) == 1 else "mean of " + ", ".join(names)
    unit = first.unit if len(names) == 1 else ""
    return Metric(name, mean.numbers, mean.summary, first.higher_is_better, unit)

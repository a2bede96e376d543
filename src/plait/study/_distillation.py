"""The loss of a student that learns what a teacher says besides what is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from plait.study._models import logits
from plait.tasks import IGNORED, TASK, Batch, Loss, NextToken, SquaredError, Task


@dataclass(frozen=True)
class DistillationLoss:
    """α·T²·CE(softmax(teacher / T), softmax(student / T)) + (1 − α)·the task's own loss.

    T² keeps the gradients of the first part of one size for all T. For numbers of a regression the first part
    is the squared distance to the teacher's, without a temperature; for next tokens it is summed over those
    that count. Hinton et al., arXiv:1503.02531, section 2.

    Args:
        own: the mixture's loss.
        tasks: of the mixture, in its order.
        teachers: each task's; called with the task's examples alone, without gradients.
        temperature: T.
        alpha: α, from 0 to 1.
        headed: whether outputs are one for each task.
    """

    own: Loss
    tasks: Sequence[Task]
    teachers: Sequence[nn.Module] = field(repr=False)
    temperature: float
    alpha: float
    headed: bool
    pads_classes: bool = False

    def __call__(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        values, weights = self.own(outputs, batch)
        soft = torch.zeros_like(values)
        for place, (task, teacher) in enumerate(zip(self.tasks, self.teachers, strict=True)):
            rows = (batch[TASK] == place).nonzero().squeeze(1)
            if len(rows) == 0:
                continue
            mine = {name: column[rows] for name, column in batch.items() if name != TASK}
            with torch.no_grad():
                wanted = logits(task.outputs(teacher.to(rows.device), mine))
            found = logits(outputs[place] if self.headed else outputs)[rows]
            soft = soft.index_put((rows,), self._soft(task, found, wanted, mine).to(soft.dtype))
        return self.alpha * soft + (1 - self.alpha) * values, weights

    def _soft(self, task: Task, found: Tensor, wanted: Tensor, batch: Batch) -> Tensor:
        """What each example adds: `(n,)`, of outputs and the teacher's `(n, …)`."""
        if isinstance(task.loss, SquaredError):
            return (found - wanted).reshape(len(found), -1).square().mean(1)
        shares = (wanted.float() / self.temperature).softmax(-1)
        nats = -(shares * (found.float() / self.temperature).log_softmax(-1)).sum(-1)
        if isinstance(task.loss, NextToken):
            counted = batch[task.loss.label][:, 1:] != IGNORED
            nats = torch.where(counted, nats[:, :-1], 0.0).sum(1)
        return self.temperature**2 * nats

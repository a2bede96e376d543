"""Several models asked at once, and what networks say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from plait.tasks import Batch, Examples, SquaredError, Task

#: Examples at a time.
_BATCH = 256


def batches(examples: Examples) -> Iterator[Batch]:
    """All examples in their order, some at a time."""
    for start in range(0, len(examples), _BATCH):
        yield examples.batch(range(start, min(start + _BATCH, len(examples))))


class Averaged(nn.Module):
    """Several networks asked at once: the mean of their probabilities.

    Outputs are logarithms of the mean, so that losses and metrics take them as logits; numbers of a
    regression are averaged as they are.

    Args:
        members: each with the task's head, if it has one.
        task: what they are asked.
    """

    def __init__(self, members: Sequence[nn.Module], task: Task) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.headed, self.numbers = task.head is not None, isinstance(task.loss, SquaredError)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        outputs = [logits(member(*args, **kwargs)) for member in self.members]
        if self.numbers:
            found = torch.stack(outputs).mean(0)
        else:
            logs = torch.stack([each.float().log_softmax(-1) for each in outputs])
            found = logs.logsumexp(0) - torch.tensor(float(len(outputs))).log()
        return found if self.headed else {"logits": found}


def logits(given: Any) -> Tensor:
    """The tensor that a network gave: itself, or a transformers output's logits."""
    return given if isinstance(given, Tensor) else given["logits"]


def said(network: nn.Module, task: Task, rows: Sequence[int], split: str) -> list[int]:
    """The classes that a network (with the task's head) finds for some examples of a split."""
    batch: Batch = task.split(split).batch(rows)
    with torch.no_grad():
        return logits(task.outputs(network.eval(), batch)).argmax(-1).tolist()

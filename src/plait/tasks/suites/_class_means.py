"""Heads without training: each class is the mean direction of its examples' features."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plait.tasks._task import Task

#: Logits are cosines times this.
_SCALE = 40.0
_ROWS = 256


class ClassMeans(nn.Module):
    """Cosines of features with the directions of classes, times a constant; nothing in it is trained.

    Args:
        directions: `(classes, features)`, of length 1 each.
    """

    def __init__(self, directions: Tensor) -> None:
        super().__init__()
        self.directions: Tensor
        self.register_buffer("directions", directions)

    def forward(self, features: Tensor) -> Tensor:
        return _SCALE * F.normalize(features, dim=-1) @ self.directions.T


def with_class_means(task: Task, base: nn.Module) -> Task:
    """A task whose head are its classes' means as the base sees its training examples.

    As with CLIP's heads of class names, experts share the space that the base gave them, and no head has to
    be trained or merged.
    """
    examples, sums = task.split("train"), None
    classes = len(task.classes)
    base.eval()
    with torch.no_grad():
        for start in range(0, len(examples), _ROWS):
            batch = examples.batch(range(start, min(start + _ROWS, len(examples))))
            features = F.normalize(task.meet(base, batch), dim=-1)
            chosen = F.one_hot(batch["label"], classes).to(features.dtype)
            sums = chosen.T @ features + (0 if sums is None else sums)
    assert sums is not None
    return replace(task, head=ClassMeans(F.normalize(sums, dim=-1)))

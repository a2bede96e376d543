"""Heads of unequal numbers of classes in one stack: each is filled up to the widest."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from plait.fleet._trainee import Trainee


def class_tensors(trainee: Trainee) -> dict[str, int]:
    """Tensors of a member's head that have a row for each class, and how many rows.

    Empty for a head that does not say so, and where filling up would change the loss. `nn.Linear` is known;
    others say it by an attribute `rows_are_classes = True`.
    """
    head = trainee.task.head
    linear = isinstance(head, nn.Linear)
    if head is None or not trainee.task.loss.pads_classes:
        return {}
    if not linear and not getattr(head, "rows_are_classes", False):
        return {}
    return {f"head.{name}": len(tensor) for name, tensor in head.state_dict().items()}


def classes_of(trainee: Trainee) -> int:
    """How many classes a head has that can be filled up; 0 for others."""
    return max(class_tensors(trainee).values(), default=0)


def wider(head: nn.Module, classes: int) -> nn.Module:
    """A head of the same kind for more classes; what its tensors hold is not copied."""
    own: Any = copy.deepcopy(head)
    for module in own.modules():
        for name, held in list(module.named_parameters(recurse=False)):
            grown = held.new_zeros((classes, *held.shape[1:]))
            setattr(module, name, nn.Parameter(grown, requires_grad=held.requires_grad))
        for name, held in list(module.named_buffers(recurse=False)):
            setattr(module, name, held.new_zeros((classes, *held.shape[1:])))
    if isinstance(own, nn.Linear):
        own.out_features = classes
    return own

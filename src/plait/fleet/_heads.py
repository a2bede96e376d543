"""Heads of unequal numbers of classes in one stack: each is filled up to the widest."""

from __future__ import annotations

from torch import nn

from plait.fleet._filled_heads import fills
from plait.fleet._trainee import Trainee


def class_tensors(trainee: Trainee) -> dict[str, int]:
    """Tensors of a member's head that have a row for each class, and how many rows.

    Empty for a head that does not say so, for one that turns out to compute otherwise, and where filling up
    would change the loss. `nn.Linear` is known; others say it by an attribute `rows_are_classes = True`: what
    they give for a class may depend on its own rows and nothing else, not even on how many others there are.
    """
    head = trainee.task.head
    if head is None or not trainee.task.loss.pads_classes:
        return {}
    if not isinstance(head, nn.Linear) and not getattr(head, "rows_are_classes", False):
        return {}
    if trainee.fills is None:
        trainee.fills = fills(trainee)
    if not trainee.fills:
        return {}
    return {f"head.{name}": len(tensor) for name, tensor in head.state_dict().items()}


def classes_of(trainee: Trainee) -> int:
    """How many classes a head has that can be filled up; 0 for others."""
    return max(class_tensors(trainee).values(), default=0)

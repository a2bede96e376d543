"""Heads without training: each class is the mean direction of its examples' features."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from plait.tasks._examples import digest
from plait.tasks._kept import code_digest, kept
from plait.tasks._task import Task

#: Logits are cosines times this.
_SCALE = 40.0
_ROWS = 256
_FILE = "head.safetensors"


class ClassMeans(nn.Module):
    """Cosines of features with the directions of classes, times a constant; nothing in it is trained.

    Args:
        directions: `(classes, features)`, of length 1 each.
    """

    #: Heads of other numbers of classes share a stack with it.
    rows_are_classes = True

    def __init__(self, directions: Tensor) -> None:
        super().__init__()
        self.directions: Tensor
        self.register_buffer("directions", directions)

    def forward(self, features: Tensor) -> Tensor:
        return _SCALE * F.normalize(features, dim=-1) @ self.directions.T


def with_class_means(task: Task, base: nn.Module, code: str) -> Task:
    """A task whose head are its classes' means as the base sees its training examples.

    As with CLIP's heads of class names, experts share the space that the base gave them, and no head has to
    be trained or merged. They are kept, as they take longer than all else of a suite.

    Args:
        task: with classes and training examples.
        base: that sees them.
        code: the file that the base's class stands in.
    """
    key = hashlib.blake2b(digest_size=12)
    code = code_digest(code, __file__)
    for part in (code, digest(task.split("train")), repr(task.meet), str(torch.__version__)):
        key.update(part.encode())
    for name, tensor in sorted(base.state_dict().items()):
        key.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        key.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())

    def make(folder: Path) -> None:
        save_file({"directions": _directions(task, base)}, folder / _FILE)

    held = load_file(kept(f"heads/{task.name}-{key.hexdigest()}", make) / _FILE)
    return replace(task, head=ClassMeans(held["directions"]))


def _directions(task: Task, base: nn.Module) -> Tensor:
    """Of classes, `(classes, features)`."""
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
    return F.normalize(sums, dim=-1)

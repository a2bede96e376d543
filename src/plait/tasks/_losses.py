"""Losses: for each example a value and a weight; a batch's loss is the sum of values over that of weights.

So a batch that is filled up (weight 0), or made of micro-batches, has the loss of the examples it stands for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from plait.tasks._examples import Batch

#: The column that says which task of a mixture an example belongs to: its place there.
TASK = "task"
#: The label of what does not count, as in PyTorch and transformers.
IGNORED = -100


class Loss(Protocol):
    """What training makes small."""

    @property
    def pads_classes(self) -> bool:
        """Whether a class whose logit is −∞ changes nothing, so that heads of unequal size can be stacked."""
        ...

    def __call__(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Values and weights, both `(n,)`."""
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """−log softmax(outputs)[label]; outputs `(n, classes)`, labels `(n,)` integers."""

    label: str = "label"
    label_smoothing: float = 0.0

    @property
    def pads_classes(self) -> bool:
        return self.label_smoothing == 0

    def __call__(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = _tensor(outputs).float() if _tensor(outputs).dtype in _SHORT else _tensor(outputs)
        values = F.cross_entropy(
            logits, batch[self.label].long(), reduction="none", label_smoothing=self.label_smoothing
        )
        return values, torch.ones_like(values)


@dataclass(frozen=True)
class SquaredError:
    """(output − label)², the mean over what an example has of them; outputs and labels `(n,)` or `(n, k)`."""

    label: str = "label"
    pads_classes: bool = False

    def __call__(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        found = _tensor(outputs)
        found = found.reshape(len(found), -1)
        wanted = batch[self.label].reshape(len(found), -1).to(found.dtype)
        values = (found - wanted).square().mean(1)
        return values, torch.ones_like(values)


@dataclass(frozen=True)
class NextToken:
    """−log p(token | those before it), summed over an example's tokens; the weight is how many they are.

    Outputs are logits `(n, length, vocabulary)`; labels `(n, length)`, not shifted, with −100 for what does
    not count, as transformers has them.
    """

    label: str = "labels"
    pads_classes: bool = False

    def __call__(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = _tensor(outputs)[:, :-1]
        labels = batch[self.label][:, 1:].long()
        counted = labels != IGNORED
        # A label of −100 is looked up at 0 and then set aside: `ignore_index` is slow under vmap.
        logits = logits.float() if logits.dtype in _SHORT else logits
        chosen = logits.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        nats = torch.where(counted, logits.logsumexp(-1) - chosen, 0.0)
        return nats.sum(1), counted.sum(1).to(nats.dtype)


_SHORT = (torch.bfloat16, torch.float16)


def _tensor(outputs: Any) -> Tensor:
    """The tensor that a model gave: itself, or the logits of a transformers output."""
    if isinstance(outputs, Tensor):
        return outputs
    found = outputs.get("logits") if hasattr(outputs, "get") else getattr(outputs, "logits", None)
    if not isinstance(found, Tensor):
        raise TypeError(f"a model gave a {type(outputs).__name__}, which is no tensor and has no logits")
    return found

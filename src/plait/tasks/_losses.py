"""Losses: for each example a value and a weight; a batch's loss is the sum of values over that of weights.

So a batch that is filled up (weight 0), or made of micro-batches, has the loss of the examples it stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from plait.errors import InputError
from plait.tasks._examples import IGNORED, Batch

#: The column that says which task of a mixture an example belongs to: its place there.
TASK = "task"


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
    """(output − label)², the mean over what an example has of them; outputs and labels `(n,)` or `(n, k)`.

    Both have the same shape but for dimensions of 1; others are refused, as they would be broadcast.
    """

    label: str = "label"
    pads_classes: bool = False

    def __call__(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        found, labels = _tensor(outputs), batch[self.label]
        if (problem := size_problem(found.shape, labels.shape)) is not None:
            raise problem
        wanted = labels.reshape(len(labels), -1).to(found.dtype)
        values = (found.reshape(wanted.shape) - wanted).square().mean(1)
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


def size_problem(outputs: Sequence[int], labels: Sequence[int]) -> InputError | None:
    """What is wrong with the shapes of outputs and of labels that are numbers, if anything is."""
    if list(outputs[:1]) != list(labels[:1]):
        what = f"a network gives outputs of shape {tuple(outputs)} for {labels[0]} examples"
        return InputError(what, hint="its first dimension has to run over examples")
    given, wanted = ([size for size in shape[1:] if size != 1] for shape in (outputs, labels))
    if given == wanted:
        return None
    what = f"a network gives outputs of size {_times(given)} for labels of size {_times(wanted)}"
    return InputError(what, hint="give it as many outputs as an example has labels")


def _times(sizes: Sequence[int]) -> str:
    return " × ".join(map(str, sizes)) or "1"


def _tensor(outputs: Any) -> Tensor:
    """The tensor that a model gave: itself, or the logits of a transformers output."""
    if isinstance(outputs, Tensor):
        return outputs
    found = outputs.get("logits") if hasattr(outputs, "get") else getattr(outputs, "logits", None)
    if not isinstance(found, Tensor):
        raise TypeError(f"a model gave a {type(outputs).__name__}, which is no tensor and has no logits")
    return found

"""Metrics: each example gives a few numbers, and one formula makes a score of their sums.

So a score over resampled examples (the bootstrap) needs no second pass through the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plait.tasks._examples import Batch
from plait.tasks._losses import NextToken, SquaredError, _tensor

Floats = NDArray[np.float64]
Summary = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Metric:
    """A score.

    Args:
        name: what it is called in tables.
        numbers: of outputs and batch, `(n, k)`: what each example adds.
        summary: of sums `(…, k)` over examples, the score `(…)`.
        higher_is_better: which way is better.
        unit: of the score, if it has one.
    """

    name: str
    numbers: Callable[[Any, Batch], Tensor]
    summary: Summary
    higher_is_better: bool = True
    unit: str = ""


def accuracy(label: str = "label") -> Metric:
    """The share of examples whose largest output is their label's."""

    def numbers(outputs: Any, batch: Batch) -> Tensor:
        right = _tensor(outputs).argmax(-1) == batch[label]
        return torch.stack([right.double(), torch.ones_like(right, dtype=torch.double)], dim=1)

    return Metric("accuracy", numbers, _ratio)


def macro_f1(classes: int, label: str = "label") -> Metric:
    """The mean over classes of F1 = 2·tp / (2·tp + fp + fn); a class that is nowhere counts 0."""

    def numbers(outputs: Any, batch: Batch) -> Tensor:
        said = torch.nn.functional.one_hot(_tensor(outputs).argmax(-1), classes)
        true = torch.nn.functional.one_hot(batch[label].long(), classes)
        return torch.cat([said * true, said, true], dim=1).double()

    def summary(sums: Floats) -> Floats:
        hit, said, true = np.split(sums, 3, axis=-1)
        return np.mean(2 * hit / np.maximum(said + true, 1), axis=-1)

    return Metric("macro F1", numbers, summary)


def mean_squared_error(label: str = "label") -> Metric:
    """The mean of squared errors."""
    loss = SquaredError(label)

    def numbers(outputs: Any, batch: Batch) -> Tensor:
        return torch.stack(loss(outputs, batch), dim=1).double()

    return Metric("mean squared error", numbers, _ratio, higher_is_better=False)


def bits_per_byte(label: str = "labels", size: str = "bytes") -> Metric:
    """−log₂ p of a text over its bytes: a score that does not depend on the tokenizer.

    A batch has under `size` how many bytes each example's counted tokens stand for; without it, a token is
    a byte.
    """
    loss = NextToken(label)

    def numbers(outputs: Any, batch: Batch) -> Tensor:
        nats, tokens = loss(outputs, batch)
        return torch.stack([nats.double() / math.log(2), batch.get(size, tokens).double()], dim=1)

    return Metric("bits per byte", numbers, _ratio, higher_is_better=False, unit="bit/byte")


def perplexity(label: str = "labels") -> Metric:
    """exp of the mean over tokens of −log p."""
    loss = NextToken(label)

    def numbers(outputs: Any, batch: Batch) -> Tensor:
        return torch.stack(loss(outputs, batch), dim=1).double()

    return Metric("perplexity", numbers, lambda sums: np.exp(_ratio(sums)), higher_is_better=False)


def _ratio(sums: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[..., 0] / sums[..., 1]

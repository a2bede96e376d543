"""How a batch meets a model: what the model is called with, and which part of what it gives goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from plait.tasks._examples import Batch


class Meet(Protocol):
    """Calls a model with a batch. Two meetings that are equal (`==`) may share a stack."""

    def __call__(self, model: Callable[..., Any], batch: Batch) -> Any:
        """What the head, or the loss, gets."""
        ...


@dataclass(frozen=True)
class ByInput:
    """`model(batch["input"])`."""

    name: str = "input"

    def __call__(self, model: Callable[..., Any], batch: Batch) -> Any:
        return model(batch[self.name])


@dataclass(frozen=True)
class ByKeywords:
    """`model(input_ids=…, attention_mask=…)`, as transformers' models are called; those that a batch has.

    Args:
        names: the batch's columns that the model takes.
        output: which part of what the model gives goes on; everything if empty.
    """

    names: tuple[str, ...] = ("input_ids", "attention_mask", "position_ids")
    output: str = "logits"

    def __call__(self, model: Callable[..., Any], batch: Batch) -> Any:
        given = model(**{name: batch[name] for name in self.names if name in batch})
        return given[self.output] if self.output else given


@dataclass(frozen=True)
class MeanPooled:
    """A sentence encoder: the mean of the last hidden states of an example's tokens, padding left out."""

    names: tuple[str, ...] = ("input_ids", "attention_mask")

    def __call__(self, model: Callable[..., Any], batch: Batch) -> Tensor:
        hidden = model(**{name: batch[name] for name in self.names}).last_hidden_state
        counted = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        return (hidden * counted).sum(1) / counted.sum(1).clamp(min=1)

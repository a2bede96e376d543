"""The loss of next tokens without all logits: only where a label counts, a few rows at a time.

The output layer is frozen, so the gradient of a token's loss for its hidden state, (softmax(W·h) − onehot)·W,
is known as soon as its logits are: they are made, used and forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from plait.tasks import IGNORED, Batch

#: Hidden states whose logits are held at once.
_ROWS = 128


class Deferred(nn.Module):
    """Stands where a model's output layer stood and gives back its input.

    A model that returns that very tensor as its logits does nothing else to them, so that they can be made
    later; one that returns another is to be run with its own layer.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.on = True
        self.hidden: Tensor | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        if not self.on:
            return self.layer(hidden)
        self.hidden = hidden
        return hidden

    def __getattr__(self, name: str) -> Any:
        if name in ("weight", "bias", "in_features", "out_features"):
            return getattr(self.layer, name)
        return super().__getattr__(name)


def defer(model: nn.Module, taken: Callable[[str], bool]) -> Deferred | None:
    """Put a `Deferred` where a model's output layer stands; None if it has none of the plain kind.

    Args:
        model: changed.
        taken: whether something else stands on a layer of that name.
    """
    get = getattr(model, "get_output_embeddings", None)
    layer = get() if get is not None else None
    name = next((name for name, module in model.named_modules() if module is layer), None)
    if type(layer) is not nn.Linear or name is None or taken(name):
        return None
    deferred = Deferred(layer)
    model.set_submodule(name, deferred)
    return deferred


def next_token(hidden: Tensor, layer: nn.Linear, labels: Tensor) -> tuple[Tensor, Tensor]:
    """What `NextToken` gives for the logits of hidden states.

    Args:
        hidden: `(n, length, width)`.
        layer: the output layer, frozen.
        labels: `(n, length)`, not shifted, −100 for what does not count.

    Returns:
        sums of −log p `(n,)`, and how many tokens they are of.
    """
    wanted = labels[:, 1:]
    counted = wanted != IGNORED
    row, place = counted.nonzero(as_tuple=True)
    nats = _Surprise.apply(hidden[row, place], layer, wanted[row, place].long())
    sums = torch.zeros(len(labels), dtype=nats.dtype, device=nats.device)  # type: ignore[union-attr]
    return sums.index_add(0, row, nats), counted.sum(1).to(nats.dtype)  # type: ignore[arg-type, union-attr]


class _Surprise(torch.autograd.Function):
    """−log p of each target, and with it the gradient for its hidden state."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, layer: nn.Linear, targets: Tensor) -> Tensor:  # type: ignore[override]
        short = hidden.dtype in (torch.bfloat16, torch.float16)
        wide = torch.float32 if short else hidden.dtype
        nats = torch.empty(len(hidden), dtype=wide, device=hidden.device)
        gradient = torch.empty_like(hidden)
        for start in range(0, len(hidden), _ROWS):
            rows = slice(start, start + _ROWS)
            logits = layer(hidden[rows]).to(wide)
            logs = torch.log_softmax(logits, dim=-1, out=None if short else logits)
            target = targets[rows].unsqueeze(1)
            nats[rows] = -logs.gather(1, target).squeeze(1)
            shares = logs.exp_()
            shares.scatter_add_(1, target, torch.full_like(target, -1, dtype=wide))
            gradient[rows] = shares.to(hidden.dtype) @ layer.weight
        ctx.save_for_backward(gradient)
        return nats

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0].unsqueeze(1).to(gradient.dtype), None, None


def labels_of(batch: Batch, label: str, rows: Tensor | None) -> Tensor:
    """Labels, none of which counts in rows that only fill up."""
    labels = batch[label]
    if rows is None:
        return labels
    return torch.where(rows.view(-1, 1) > 0, labels, torch.full_like(labels, IGNORED))

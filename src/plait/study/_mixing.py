"""Several language models as one: at each token a weighted mean of what they say of the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from plait.study._language import Texts
from plait.study._models import logits

#: Of what the members said of the tokens there are, log p `(members, n, length)`, and of the texts: the
#: logarithm of each one's weight for what comes after each token, `(members, n, length)`.
Weigh = Callable[[Tensor, Texts], Tensor]
#: Examples at a time, since all members' outputs for them are in memory at once.
_ROWS = 32


class TokenMixture(nn.Module):
    """p(x_t | x_<t) = Σ_j w_j(x_<t) p_j(x_t | x_<t), as logits.

    It is called as its members are, with tokens first or as `input_ids`.

    Args:
        members: language models of one vocabulary.
        weigh: gives the weights, from what came before alone.
        top: how many of the largest weights are kept at each token, and made to sum to 1 again; all if None.
    """

    def __init__(self, members: Sequence[nn.Module], weigh: Weigh, top: int | None = None) -> None:
        super().__init__()
        self.members, self.weigh, self.top = nn.ModuleList(members), weigh, top

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        ids = args[0] if args else kwargs["input_ids"]
        parts = []
        for start in range(0, len(ids), _ROWS):
            rows = slice(start, start + _ROWS)
            named = {name: _rows(value, rows) for name, value in kwargs.items()}
            parts.append(self._mixed([_rows(value, rows) for value in args], named))
        return {"logits": torch.cat(parts)}

    def _mixed(self, args: list[Any], kwargs: dict[str, Any]) -> Tensor:
        ids = args[0] if args else kwargs["input_ids"]
        texts = Texts.of(ids, kwargs.get("attention_mask"), kwargs.get("position_ids"))
        logs = [log_shares(logits(member(*args, **kwargs))) for member in self.members]
        weights = kept(self.weigh(log_said(logs, texts), texts), self.top)
        parts = [w.unsqueeze(-1).to(log.dtype) + log for w, log in zip(weights, logs, strict=True)]
        return torch.stack(parts).logsumexp(0)


def log_shares(given: Tensor) -> Tensor:
    """log p of all next tokens, of logits; in float32 at least."""
    return (given if given.dtype == torch.float64 else given.float()).log_softmax(-1)


def log_said(logs: Sequence[Tensor], texts: Texts) -> Tensor:
    """log p_j of each token given those before it, 0 where a text begins; float64 `(members, n, length)`."""
    found = torch.zeros(len(logs), *texts.ids.shape, dtype=torch.float64, device=texts.ids.device)
    later = texts.ids[:, 1:, None].long()
    for place, log in enumerate(logs):
        found[place, :, 1:] = log[:, :-1].gather(-1, later).squeeze(-1).double()
    return found.masked_fill(texts.begins, 0)


def kept(weights: Tensor, top: int | None) -> Tensor:
    """The `top` largest weights of the first dimension, of equal ones the first; normalised logarithms."""
    if top is not None and top < len(weights):
        order = torch.sort(weights, dim=0, descending=True, stable=True).indices
        ranks = order.argsort(0)
        weights = weights.masked_fill(ranks >= top, -torch.inf)
    return weights.log_softmax(0)


def _rows(value: Any, rows: slice) -> Any:
    return value[rows] if isinstance(value, Tensor) and value.dim() else value

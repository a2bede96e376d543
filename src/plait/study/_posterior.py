"""Which expert's domain a text is of: Bayes' rule on what each expert says of it (Branch-Train-Merge).

p(D=j | x_≤t) ∝ π_j Π_{s≤t} p_j(x_s | x_<s), in logarithms. Li et al., arXiv:2208.03306, section 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from plait.study._language import Texts

#: What a domain's posterior is of: all that came before, or the last token alone, as in the code that was
#: published with DEMix and c-BTM.
Form = Literal["prefix", "token"]


def log_posterior(said: Tensor, texts: Texts, prior: Tensor, form: Form = "prefix") -> Tensor:
    """log p(D=j | x_≤t) for each token t, normalised: `(experts, n, length)`.

    Where every expert says that what came before can't be, nothing tells them apart, and it is the prior.

    Args:
        said: log p_j(x_t | x_<t), 0 where a text begins; `(experts, n, length)`.
        texts: what it was said of; evidence begins anew with each text.
        prior: π, `(experts,)`, of sum 1. With `token`, weights are equal where a text begins instead.
        form: see `Form`.
    """
    first = prior.to(said).log()[:, None, None].expand_as(said)
    if form == "token":
        equal = torch.full_like(said, -torch.tensor(float(len(said))).log().item())
        first = torch.where(texts.begins, equal, first)
    evidence = said if form == "token" else _summed(said, texts.begins)
    found = first + evidence
    lost = torch.isneginf(found).all(0)
    return torch.where(lost, first, found).log_softmax(0)


def _summed(said: Tensor, begins: Tensor) -> Tensor:
    """Sums from where a text begins to each token. −∞ is counted, since it can't be taken off again."""
    places = torch.arange(begins.shape[1], device=begins.device).expand_as(begins)
    start = torch.where(begins, places, 0).cummax(1).values.expand_as(said)
    never = torch.isneginf(said)
    total, zeros = said.masked_fill(never, 0).cumsum(2), never.cumsum(2)
    total, zeros = total - total.gather(2, start), zeros - zeros.gather(2, start)
    return total.masked_fill(zeros > 0, -torch.inf)


def cached_prior(
    stream: Iterable[tuple[Tensor, Texts]], form: Form = "prefix", *, most: int = 100, decay: float = 0.3
) -> Tensor:
    """π, from the first texts of a domain: π ← 0.3 · posterior + 0.7 · π, text by text.

    The posterior is that of a whole text, under the π that there is when it comes; the first is equal shares.
    With `token` it is the mean over the text's tokens, and π is the first one's after that.

    Args:
        stream: log p_j of tokens as for `log_posterior`, and the texts.
        form: see `Form`.
        most: texts that count.
        decay: the newest text's share.

    Returns:
        `(experts,)` in float64, of sum 1.
    """
    prior, number = torch.tensor([]), 0
    for said, texts in stream:
        if number == 0:
            prior = torch.full((len(said),), 1 / len(said), dtype=torch.float64)
        for row, place in texts:
            if number == most:
                return prior
            found = log_posterior(said[:, row : row + 1, place], texts.part(row, place), prior, form).exp()
            own = found[:, 0, -1] if form == "prefix" else found[:, 0].mean(1)
            prior = own if form == "token" and number == 0 else decay * own + (1 - decay) * prior
            prior, number = prior / prior.sum(), number + 1
    return prior

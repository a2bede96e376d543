"""PyTorch's multi-head attention (Vaswani et al., arXiv:1706.03762, section 3.2.2), dropout our own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_signature = inspect.signature(F.multi_head_attention_forward)

#: Of queries `(…, length, size)`, keys, and what is added to their products: each query's shares of the keys.
Shares = Callable[[Tensor, Tensor, Tensor | None, float], Tensor]


def multi_head(shares: Shares, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None] | None:
    """What `F.multi_head_attention_forward` gives, its dropout taken by `shares`.

    Returns:
        outputs and weights; None if nothing is dropped, or for what `nn.MultiheadAttention` is rarely asked
        for (biases of keys and values, a zero key, given keys).
    """
    bound = _signature.bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    rare = ("bias_k", "bias_v", "static_k", "static_v")
    if not given["training"] or not given["dropout_p"] or given["add_zero_attn"]:
        return None
    if any(given[name] is not None for name in rare):
        return None
    flat = given["query"].dim() == 2
    inputs = [given[name].unsqueeze(1) if flat else given[name] for name in ("query", "key", "value")]
    heads, bias = given["num_heads"], given["in_proj_bias"]
    if given["use_separate_proj_weight"]:
        weights = [given[f"{name}_proj_weight"] for name in "qkv"]
    else:
        weights = list(given["in_proj_weight"].chunk(3))
    biases = [None] * 3 if bias is None else list(bias.chunk(3))
    # (length, examples, size) → (examples, heads, length, size of a head)
    q, k, v = (
        F.linear(x, w, b).unflatten(-1, (heads, -1)).permute(1, 2, 0, 3)
        for x, w, b in zip(inputs, weights, biases, strict=True)
    )
    found = shares(q, k, _added(given, q, flat), given["dropout_p"])
    out = F.linear(
        (found @ v).permute(2, 0, 1, 3).flatten(2), given["out_proj_weight"], given["out_proj_bias"]
    )
    told = None
    if given["need_weights"]:
        told = found.mean(1) if given["average_attn_weights"] else found
        told = told.squeeze(0) if flat else told
    return (out.squeeze(1) if flat else out), told


def _added(given: dict[str, Any], q: Tensor, flat: bool) -> Tensor | None:
    """Both masks as what is added to `(examples, heads, queries, keys)`; True in one is what is not seen."""
    mask, padding = given["attn_mask"], given["key_padding_mask"]
    found = None
    if mask is not None:
        mask = _as_sum(mask, q)
        found = mask if mask.dim() == 2 else mask.unflatten(0, q.shape[:2])
    if padding is not None:
        padding = _as_sum(padding.unsqueeze(0) if flat else padding, q)[:, None, None]
        found = padding if found is None else found + padding
    return found


def _as_sum(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    zeros = torch.zeros(mask.shape, dtype=like.dtype, device=like.device)
    return zeros.masked_fill(mask, -torch.inf)

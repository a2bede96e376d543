"""Dropout whose masks depend on nothing but the member's seed, its step, the call and the coordinates.

So a member drops the same entries alone, in a stack, or beside others in one concatenated batch, whatever
the batch is filled up with. The entry at coordinates (i, j, …) hashes the sum of its coordinates, each times
an odd constant, with the member's key: a 32-bit integer hash (Wellons' `lowbias32`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from plait.fleet._multi_head import multi_head
from plait.numerics import stream_key

# Odd constants for coordinates, last dimension first: 2³² over the plastic numbers' powers.
_STRIDES = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1, 0xD3A2646D)
_SIGNED = 1 << 31


def step_key(seed: int, step: int, micro_batch: int = 0) -> int:
    """A member's key for one micro-batch, as a signed 32-bit integer."""
    return _signed(stream_key(seed, "dropout", f"{step} {micro_batch}")[0])


def _signed(word: int) -> int:
    return (word + _SIGNED) % (1 << 32) - _SIGNED


def _mixed(x: Tensor) -> Tensor:
    """Hash of int32, 32 bits to 32 bits; int32 multiplication wraps as uint32's does."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * 0x7FEB352D
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * _signed(0x846CA68B)
    return x ^ ((x >> 16) & 0xFFFF)


def keep_mask(key: Tensor, call: int, shape: tuple[int, ...], p: float) -> Tensor:
    """Which entries stay: True with probability 1 − p.

    Args:
        key: int32 scalar, of one member and micro-batch; may be batched under vmap.
        call: which dropout of the forward pass this is.
        shape: of what is dropped from.
        p: probability of dropping.
    """
    return hashed(key ^ salt(call), shape) >= threshold(p)


def salt(call: int) -> int:
    """What a call's number changes in a key."""
    return _signed((call + 1) * 0x9E3779B9 % (1 << 32))


def threshold(p: float) -> int:
    """The hash from which on an entry stays."""
    return min(round(p * (1 << 32)), (1 << 32) - 1) - _SIGNED


def hashed(key: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A hash of key and coordinates, int32; keys broadcast against the shape."""
    place = torch.zeros((), dtype=torch.int32, device=key.device)
    for back, size in enumerate(reversed(shape)):
        steps = torch.arange(size, dtype=torch.int32, device=key.device) * _signed(
            _STRIDES[back % len(_STRIDES)]
        )
        place = steps.view(-1, *[1] * back) + place
    return _mixed(place ^ _mixed(key))


class Dropout(TorchFunctionMode):
    """While active, every dropout of a forward pass takes its mask from `masks(call, shape, p)`.

    `calls` counts those that drop; after a forward pass it says whether the network uses dropout at all. With
    `plain_attention`, attention is spelt out as matrix products, as vmap has no rule for the fused kernels.
    """

    def __init__(
        self, masks: Callable[[int, tuple[int, ...], float], Tensor], *, plain_attention: bool = False
    ) -> None:
        super().__init__()
        self.masks, self.plain_attention = masks, plain_attention
        self.calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUTS or func in _ALPHA:
            drop = self._dropped if func in _DROPOUTS else self._alpha
            return drop(func, kwargs.pop("input") if "input" in kwargs else args[0], *args[1:], **kwargs)
        if func is F.scaled_dot_product_attention:
            p = kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0)
            if p or self.plain_attention:
                return self._attention(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            found = multi_head(self._shares, *args, **kwargs)
            return func(*args, **kwargs) if found is None else found
        return func(*args, **kwargs)

    def _dropped(
        self, func: Any, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or p == 0:
            return x
        if p == 1:
            return x * 0
        whole = _DROPOUTS[func]
        shape = tuple(x.shape)
        seen = shape if whole is None else shape[:2] + (1,) * (len(shape) - 2)
        keep = self.masks(self.calls, seen, p)
        self.calls += 1
        return torch.where(keep, x * (1 / (1 - p)), torch.zeros((), dtype=x.dtype, device=x.device))

    def _alpha(
        self, func: Any, x: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
    ) -> Tensor:
        """Dropout to SELU's lowest value, then scaled and shifted so that mean and variance stay
        (Klambauer et al., arXiv:1706.02515, section 3)."""
        if not training or p == 0:
            return x
        shape = tuple(x.shape)
        whole = shape[:2] + (1,) * (len(shape) - 2)
        keep = self.masks(self.calls, whole if func is F.feature_alpha_dropout else shape, p)
        self.calls += 1
        scale = ((1 - p) * (1 + p * _LOWEST**2)) ** -0.5
        low = torch.full((), _LOWEST, dtype=x.dtype, device=x.device)
        return scale * (torch.where(keep, x, low) - p * _LOWEST)

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """softmax(q·kᵀ·scale + mask), dropped, times v, as PyTorch documents it."""
        if enable_gqa:
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
            value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
        if is_causal:
            sizes = (query.shape[-2], key.shape[-2])
            seen = torch.ones(sizes, dtype=torch.bool, device=query.device).tril()
            attn_mask = seen if attn_mask is None else attn_mask & seen
        return self._shares(query, key, attn_mask, dropout_p, scale) @ value

    def _shares(
        self, query: Tensor, key: Tensor, mask: Tensor | None, p: float, scale: float | None = None
    ) -> Tensor:
        """softmax(q·kᵀ·scale + mask), dropped; 0 for a query that sees no key, as with PyTorch's own."""
        scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        blind = None
        if mask is not None:
            least = torch.finfo(scores.dtype).min
            if mask.dtype == torch.bool:
                scores, blind = scores.masked_fill(~mask, least), ~mask.any(-1, keepdim=True)
            else:
                scores, blind = scores + mask.clamp(min=least), mask.amax(-1, keepdim=True) <= least
        shares = torch.softmax(scores, dim=-1)
        return self._dropped(F.dropout, shares if blind is None else shares.masked_fill(blind, 0.0), p)


_ALPHA = (F.alpha_dropout, F.feature_alpha_dropout)
#: What SELU tends to, far below 0: −λα.
_LOWEST = -1.0507009873554805 * 1.6732632423543772
#: PyTorch's dropouts: None for those that drop entries, True for those that drop whole channels.
_DROPOUTS: dict[Any, bool | None] = {
    F.dropout: None,
    torch.dropout: None,
    F.dropout1d: True,
    F.dropout2d: True,
    F.dropout3d: True,
}


def dropout(key: Tensor, *, plain_attention: bool = False) -> Dropout:
    """Dropout with one member's key (int32 scalar)."""
    return Dropout(lambda call, shape, p: keep_mask(key, call, shape, p), plain_attention=plain_attention)

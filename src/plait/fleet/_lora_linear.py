"""Linear layers of a shared base with every member's LoRA factors over them, in one product.

A batch holds the members' examples one after another: x seen as (members, rows, in). Then

    y = x·Wᵀ + b + s·(x·Aᵀ)·B,    A (members, rank, in),  B (members, rank, out),  s (members, rank)

with W of the base, once for all. Layers that are called with the same x one after another (query, key and
value) are one group: x is read once for all their A, and its gradient is added up in one place. The base's
weights get no gradient; those of A and B are written where the optimizer takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plait.fleet._resident import is_transposed


@dataclass
class Part:
    """A layer in a group.

    Args:
        name: of the layer.
        layer: the base's.
        up: B, `(members, rank, out)`.
        up_grad: its gradient.
        ranks: which of the group's ranks are its own.
        dropped: of part and x, which entries stay `(members, rows, in)` and what they are multiplied by; None
            if no member drops.
    """

    name: str
    layer: Any
    up: Tensor
    up_grad: Tensor
    ranks: slice
    dropped: Callable[[Part, Tensor], tuple[Tensor, Tensor]] | None = None

    def base(self, x: Tensor) -> Tensor:
        """What the base alone gives, a tensor of its own."""
        return F.linear(x, self.weight, self.layer.bias)

    @property
    def weight(self) -> Tensor:
        """The base's weight as `(out, in)`."""
        held: Tensor = self.layer.weight
        return held.mT if is_transposed(self.layer) else held


class Group:
    """Layers that share their input.

    Args:
        down: A of all its parts, `(members, ranks, in)`.
        down_grad: its gradient.
        scales: `(members, 1, ranks)`.
        parts: in the order of their calls.
    """

    def __init__(self, down: Tensor, down_grad: Tensor, scales: Tensor, parts: Sequence[Part]) -> None:
        self.down, self.down_grad, self.scales, self.parts = down, down_grad, scales, list(parts)
        #: Makes what is computed have a gradient, as autograd sees no other input of ours that needs one.
        self._trained = torch.zeros((), device=down.device, requires_grad=True)
        #: Parts (or the whole) whose gradients hold nothing of this step yet.
        self._fresh = set(range(len(parts)))
        self._given: tuple[Tensor, int] | None = None
        self._waiting: dict[int, Tensor] = {}

    def clear(self) -> None:
        """Begin a step: gradients count from nothing, nothing waits."""
        self._fresh = set(range(len(self.parts)))
        self._given, self._waiting = None, {}

    def settle(self) -> None:
        """End a step: gradients of layers that were not called are 0."""
        for index in self._fresh:
            self.parts[index].up_grad.zero_()
            self.down_grad[:, self.parts[index].ranks].zero_()

    def __call__(self, index: int, x: Tensor) -> Tensor:
        """What a part gives for x; if it is the first, the others' outputs are computed with it."""
        given = self._given
        if index in self._waiting and given is not None and given[0] is x and given[1] == x._version:
            return self._waiting.pop(index)
        if index or len(self.parts) == 1:
            return _Forward.apply(x, self._trained, self, index, index + 1)[0]  # type: ignore[index]
        outputs: Any = _Forward.apply(x, self._trained, self, 0, len(self.parts))
        self._given, self._waiting = (x, x._version), dict(enumerate(outputs[1:], start=1))
        return outputs[0]

    def begins(self, start: int, stop: int) -> bool:
        """Whether these parts' gradients are to be written, not added to; from now on they are added to."""
        first = set(range(start, stop)) <= self._fresh
        if not first:
            for index in self._fresh & set(range(start, stop)):
                self.parts[index].up_grad.zero_()
                self.down_grad[:, self.parts[index].ranks].zero_()
        self._fresh -= set(range(start, stop))
        return first


class Adapted(nn.Module):
    """Stands where a part's layer stood."""

    def __init__(self, group: Group, index: int) -> None:
        super().__init__()
        self._call, self._index = group, index
        self.base_layer = group.parts[index].layer

    def forward(self, x: Tensor) -> Tensor:
        return self._call(self._index, x)

    @property
    def weight(self) -> Tensor:
        """The base's, for models that look at its type."""
        return self.base_layer.weight

    @property
    def bias(self) -> Tensor | None:
        """The base's."""
        return self.base_layer.bias


class _Forward(torch.autograd.Function):
    """Outputs of consecutive parts of a group."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, trained: Tensor, group: Group, start: int, stop: int
    ) -> tuple[Tensor, ...]:
        del trained
        parts = group.parts[start:stop]
        ctx.group, ctx.start, ctx.stop = group, start, stop
        ctx.set_materialize_grads(False)
        ranks = slice(parts[0].ranks.start, parts[-1].ranks.stop)
        seen, kept = _seen(x, group, parts[0])
        low = torch.bmm(seen, group.down[:, ranks].mT).mul_(group.scales[..., ranks])
        outputs = []
        for part in parts:
            y = part.base(x)
            own = low[..., part.ranks.start - ranks.start : part.ranks.stop - ranks.start]
            outputs.append(_added(y, own, part.up))
        ctx.save_for_backward(x, low, *kept)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        group: Group = ctx.group
        x, low, *kept = ctx.saved_tensors
        parts = group.parts[ctx.start : ctx.stop]
        ranks = slice(parts[0].ranks.start, parts[-1].ranks.stop)
        fresh = group.begins(ctx.start, ctx.stop)
        back = torch.empty_like(low)
        dx: Tensor | None = None
        for part, grad in zip(parts, grads, strict=True):
            own = slice(part.ranks.start - ranks.start, part.ranks.stop - ranks.start)
            if grad is None:
                back[..., own] = 0
                _into(part.up_grad, None, None, fresh)
                continue
            wide = grad.reshape(len(low), -1, grad.shape[-1]).to(low.dtype)
            back[..., own] = torch.bmm(wide, part.up.mT)
            _into(part.up_grad, low[..., own].mT, wide, fresh)
            if ctx.needs_input_grad[0]:
                flat = grad.reshape(-1, grad.shape[-1])
                dx = flat @ part.weight if dx is None else dx.addmm_(flat, part.weight)
        back.mul_(group.scales[..., ranks])
        seen = _again(x, len(low), low.dtype, kept)
        _into(group.down_grad[:, ranks], back.mT, seen, fresh)
        if dx is not None:
            dx = _gradient(dx, back, group.down[:, ranks], kept).view(x.shape)
        return dx, None, None, None, None


def _seen(x: Tensor, group: Group, part: Part) -> tuple[Tensor, list[Tensor]]:
    """x as `(members, rows, in)` in the adapters' type, dropped from; and what says which entries stay."""
    seen = x.reshape(len(group.down), -1, x.shape[-1]).to(group.down.dtype)
    if part.dropped is None:
        return seen, []
    keep, factor = part.dropped(part, x)
    return _kept(seen, keep, factor), [keep, factor]


def _again(x: Tensor, members: int, dtype: torch.dtype, kept: list[Tensor]) -> Tensor:
    seen = x.reshape(members, -1, x.shape[-1]).to(dtype)
    return _kept(seen, *kept) if kept else seen


def _kept(x: Tensor, keep: Tensor, factor: Tensor) -> Tensor:
    return torch.where(keep, x * factor, torch.zeros((), dtype=x.dtype, device=x.device))


def _added(y: Tensor, low: Tensor, up: Tensor) -> Tensor:
    """y + low·B, in place where types allow; a sum of a short type is taken in the adapters' own."""
    wide = y.view(len(low), -1, y.shape[-1])
    if y.dtype == up.dtype:
        wide.baddbmm_(low, up)
        return y
    return torch.baddbmm(wide.to(up.dtype), low, up).to(y.dtype).view(y.shape)


def _gradient(dx: Tensor, back: Tensor, down: Tensor, kept: list[Tensor]) -> Tensor:
    """dx + back·A, the latter through what was dropped."""
    wide = dx.view(len(back), -1, dx.shape[-1])
    if not kept and dx.dtype == down.dtype:
        return wide.baddbmm_(back, down)
    through = torch.bmm(back, down)
    through = _kept(through, *kept) if kept else through
    return wide.add_(through.to(dx.dtype))


def _into(held: Tensor, left: Tensor | None, right: Tensor | None, fresh: bool) -> None:
    """left·right into a gradient, or onto it; nothing if they are None."""
    if left is None or right is None:
        if fresh:
            held.zero_()
    elif not fresh:
        held.baddbmm_(left, right)
    elif held.is_contiguous():
        torch.bmm(left, right, out=held)
    else:
        held.copy_(torch.bmm(left, right))

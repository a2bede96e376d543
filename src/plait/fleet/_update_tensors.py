"""The step for many members as tensor operations, each parameter in its own type.

Types narrower than float32 are rounded after each operation after which PyTorch's optimizers round them:
their moments move by less than a rounding each step, so one rounding at the end would go elsewhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plait.fleet import _update_kernel as kernel

if TYPE_CHECKING:
    from plait.fleet._update import Optimizer

Floats = NDArray[np.float64]
Rounding = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Rates:
    """What a step takes from each member's settings; arrays `(members,)` in float64.

    `weight` is what gradients are still divided by (1 for those of means), `step` counts from 1, `clip` is
    infinite for none, `active` says who takes a step.
    """

    weight: Floats
    lr: Floats
    decay: Floats
    beta1: Floats
    beta2: Floats
    eps: Floats
    momentum: Floats
    clip: Floats
    step: Floats
    active: NDArray[np.bool_]


def table_of(optimizer: Optimizer, rates: Rates, norms: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """The kernels' settings `(13, members)`, and who takes the step."""
    adamw = optimizer.kind == "adamw"
    taken = rates.active & np.isfinite(norms)
    clipped = np.where(norms > rates.clip, rates.clip / (norms + 1e-6), 1.0)
    rows = np.empty((13, len(norms)))
    rows[kernel.FACTOR] = clipped / rates.weight
    rows[kernel.TAKEN] = taken
    rows[kernel.EPS] = rates.eps
    rows[kernel.BETA1], rows[kernel.REST1] = rates.beta1, 1 - rates.beta1
    rows[kernel.BETA2], rows[kernel.REST2] = rates.beta2, 1 - rates.beta2
    rows[kernel.RATE] = rates.lr / (1 - rates.beta1**rates.step) if adamw else rates.lr
    rows[kernel.MOMENTUM] = rates.momentum
    rows[kernel.AHEAD] = rates.momentum if optimizer.nesterov else 0
    rows[kernel.DECAY] = rates.decay
    rows[kernel.KEEP] = 1 - rates.lr * rates.decay
    rows[kernel.ROOT] = 1 / np.sqrt(1 - rates.beta2**rates.step)
    return rows, taken


def tensor_step(
    optimizer: Optimizer, gradients: Sequence[Tensor], rates: Rates
) -> tuple[Floats, NDArray[np.bool_]]:
    """A step like the compiled one's, of parameters of any types."""
    norms = _norms(gradients, rates.weight)
    rows, taken = table_of(optimizer, rates, norms)
    device = gradients[0].device
    tables = {
        p.dtype: torch.as_tensor(rows, dtype=_wide(p.dtype), device=device) for p in optimizer.parameters
    }
    active = torch.as_tensor(taken, device=device)
    weight = torch.as_tensor(rates.weight, device=device)
    for index, (p, g) in enumerate(zip(optimizer.parameters, gradients, strict=True)):
        held = [p, *(moment[index] for moment in optimizer.moments)]
        ones = [1] * (p.dim() - 1)
        columns, rounded = tables[p.dtype].view(len(rows), -1, *ones), _rounding(p.dtype)
        x = _scaled(g, weight.view(-1, *ones), columns[kernel.FACTOR], rounded)
        now = [each.to(_wide(p.dtype)) for each in held]
        new = _formula(optimizer.kind, now, x, columns, optimizer.decays[index], rounded)
        for old, value in zip(held, new, strict=True):
            old.copy_(torch.where(active.view(-1, *ones), value.to(old.dtype), old))
    return norms, taken


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The type that numbers of a type are computed in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _narrow(dtype: torch.dtype) -> bool:
    return dtype in (torch.bfloat16, torch.float16)


def _rounding(dtype: torch.dtype) -> Rounding:
    """What an operation of PyTorch's on that type does to its result, as it computes in float32."""
    return (lambda x: x.to(dtype).float()) if _narrow(dtype) else (lambda x: x)


def _norms(gradients: Sequence[Tensor], weight: Floats) -> Floats:
    """Norms of the members' mean gradients; of narrow types as rounded as PyTorch's.

    A norm for each tensor in its own type, then of these in the widest type.
    """
    found = []
    for g in gradients:
        flat = g.unsqueeze(-1).flatten(1)
        if _narrow(g.dtype):
            mean = flat.float() / torch.as_tensor(weight, dtype=torch.float32, device=g.device).unsqueeze(1)
            found.append(mean.to(g.dtype).double().norm(dim=1).to(g.dtype).double())
        else:
            found.append(flat.double().norm(dim=1) / torch.as_tensor(weight, device=g.device))
    widest = functools.reduce(torch.promote_types, (g.dtype for g in gradients))
    norms = torch.stack(found).norm(dim=0)
    return (norms.to(widest).double() if _narrow(widest) else norms).cpu().numpy()


def _scaled(g: Tensor, weight: Tensor, factor: Tensor, rounded: Rounding) -> Tensor:
    """Gradients of the sum as the clipped ones of the mean: divided, then multiplied, if both round."""
    wide = _wide(g.dtype)
    if not _narrow(g.dtype):
        return g.to(wide) * factor
    return rounded(rounded(g.to(wide) / weight.to(wide)) * (factor * weight).to(wide))


def _formula(
    kind: str, now: list[Tensor], g: Tensor, columns: Tensor, decays: bool, rounded: Rounding
) -> list[Tensor]:
    """Parameters and moments after the step; the kernels' formulas, in the order of PyTorch's operations."""
    p, rate = now[0], columns[kernel.RATE]
    if kind == "adamw":
        p = rounded(columns[kernel.KEEP] * p) if decays else p
        m = rounded(torch.lerp(now[1], g, columns[kernel.REST1]))
        v = rounded(rounded(columns[kernel.BETA2] * now[2]) + columns[kernel.REST2] * g * g)
        root = rounded(rounded(v.sqrt()) * columns[kernel.ROOT])
        return [p - rate * m / rounded(root + columns[kernel.EPS]), m, v]
    g = _added(g, p, columns[kernel.DECAY], rounded) if decays else g
    if len(now) == 1:
        return [_added(p, g, -rate, rounded)]
    m, ahead = rounded(rounded(columns[kernel.MOMENTUM] * now[1]) + g), columns[kernel.AHEAD]
    along = torch.where(ahead > 0, _added(g, m, ahead, rounded), m)
    return [_added(p, along, -rate, rounded), m]


def _added(x: Tensor, y: Tensor, alpha: Tensor, rounded: Rounding) -> Tensor:
    """x + α·y, as PyTorch's `add` has it: on a CPU, α is rounded as well."""
    return rounded(x + (rounded(alpha) if alpha.device.type == "cpu" else alpha) * y)

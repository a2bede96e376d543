"""A base that many members share: structures of their own around one set of weights."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn


def shell(base: nn.Module) -> nn.Module:
    """The base's modules anew around the same numbers, frozen; whatever is done to it, the base stays.

    Buffers are copied, weights are not: a tensor that two modules share stays shared. A transformers model
    keeps no keys and values of the past, of which training has no use.
    """
    memo: dict[int, Any] = {}
    for parameter in base.parameters():
        plain = type(parameter) is nn.Parameter
        held = nn.Parameter(parameter.detach(), requires_grad=False) if plain else parameter
        memo[id(parameter)] = held
    made = copy.deepcopy(base, memo)
    if getattr(getattr(made, "config", None), "use_cache", False):
        made.config.use_cache = False  # type: ignore[union-attr]
    return made


def linear_layers(base: nn.Module) -> dict[str, nn.Module]:
    """Name → layer, for those that an adapter can stand on: `nn.Linear`, and GPT-2's `Conv1D`."""
    return {name: module for name, module in base.named_modules() if is_linear(module)}


def is_linear(module: nn.Module) -> bool:
    """Whether a layer is nothing but x·Wᵀ + b."""
    hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    return not hooked and (type(module) is nn.Linear or is_transposed(module))


def is_transposed(module: nn.Module) -> bool:
    """Whether a layer holds its weight as `(in, out)`, as transformers' `Conv1D` does."""
    return type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils"


def sizes(module: nn.Module) -> tuple[int, int]:
    """How many numbers a linear layer takes, and how many it gives."""
    outputs, inputs = module.weight.shape  # type: ignore[misc]
    return (outputs, inputs) if is_transposed(module) else (inputs, outputs)  # type: ignore[return-value]

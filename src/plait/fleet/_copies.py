"""Modules that each member trains a copy of, inside a base that all share: PEFT's `modules_to_save`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

#: Of a member: a context in which only its examples are seen.
Alone = Callable[[int], AbstractContextManager[Any]]


class Copies(nn.Module):
    """Stands where such a module stood; each member's examples meet its own weights.

    Args:
        module: the base's.
        own: for each member, its weights by name (views of what is trained); None for the base's.
        alone: what to be in while a member's examples are seen.
    """

    def __init__(self, module: nn.Module, own: Sequence[Mapping[str, Tensor] | None], alone: Alone) -> None:
        super().__init__()
        self._module = [copy.deepcopy(module)]
        self._own, self._alone = list(own), alone

    def forward(self, *given: Any, **named: Any) -> Tensor:
        members = len(self._own)
        outputs = []
        for member, own in enumerate(self._own):
            args = tuple(_rows(value, member, members) for value in given)
            kwargs = {name: _rows(value, member, members) for name, value in named.items()}
            with self._alone(member):
                module = self._module[0]
                outputs.append(
                    module(*args, **kwargs)
                    if own is None
                    else functional_call(module, dict(own), args, kwargs)
                )
        return torch.cat(outputs)


def _rows(value: Any, member: int, members: int) -> Any:
    """A member's part of a tensor whose first dimension runs over all examples."""
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    rows = len(value) // members
    return value[member * rows : (member + 1) * rows]

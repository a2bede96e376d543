"""Activation checkpointing: parts of a pass that are computed again in the backward pass drop the same."""

from __future__ import annotations

import copy
import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

from plait.fleet._dropout import Dropout


def recomputing(network: nn.Module) -> None:
    """Where a transformers model checkpoints activations, let dropouts count as in the first pass."""
    again = functools.partial(checkpoint, use_reentrant=False, context_fn=_contexts)
    for module in network.modules():
        if getattr(module, "gradient_checkpointing", False):
            module._gradient_checkpointing_func = again  # type: ignore[assignment]


def _contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Of the first pass and of the second one."""
    active = [mode for mode in _get_current_function_mode_stack() if isinstance(mode, Dropout)]
    return nullcontext(), _Again(active[-1]) if active else nullcontext()


class _Again:
    """Dropout that counts on from where it was when this was made."""

    def __init__(self, mode: Dropout) -> None:
        self.mode, self.calls = mode, copy.copy(mode.calls)
        self._later: Any = None

    def __enter__(self) -> None:
        self._later, self.mode.calls = self.mode.calls, copy.copy(self.calls)
        self.mode.__enter__()

    def __exit__(self, *error: object) -> None:
        self.mode.__exit__(*error)
        self.mode.calls = self._later

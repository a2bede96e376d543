"""What happens in one pass of a network: which linear layers are called in what order, with which inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from plait.fleet._dropout import Dropout
from plait.fleet._resident import linear_layers
from plait.fleet._watch import generators


@dataclass(frozen=True)
class Calls:
    """One pass of a network in training mode.

    Args:
        layers: name of a linear layer and number of its input, in the order of the calls; None for a dropout.
        drops: whether anything was dropped.
        draws: whether random numbers were drawn beside dropout.
        idle: layers that the loss does not depend on.
    """

    layers: tuple[tuple[str, int] | None, ...]
    drops: bool
    draws: bool
    idle: frozenset[str] = frozenset()

    def groups(self, wanted: Collection[str]) -> list[tuple[str, ...]]:
        """The wanted layers, those together that are called one after another with one input.

        Idle ones are by themselves, as no optimizer touches them.
        """
        busy = set(wanted) - self.idle
        called = [call for call in self.layers if call is None or call[0] in busy]
        times = Counter(call[0] for call in called if call is not None)
        found = [
            tuple(call[0] for call in run if call is not None)
            for given, run in groupby(called, key=lambda call: None if call is None else call[1])
            if given is not None
        ]
        kept = [group for group in found if all(times[name] == 1 for name in group)]
        grouped = {name for group in kept for name in group}
        return kept + [(name,) for name in wanted if name not in grouped]


def record(network: nn.Module, run: Callable[[], Any]) -> Calls:
    """Run a network once and tell what happened.

    Args:
        network: whose linear layers are looked at.
        run: calls it.
    """
    calls: list[tuple[str, int] | None] = []
    inputs: list[Tensor] = []

    def seen(name: str, x: Tensor) -> None:
        number = next((i for i, held in enumerate(inputs) if held is x), len(inputs))
        if number == len(inputs):
            inputs.append(x)
        calls.append((name, number))

    def masks(_: int, shape: tuple[int, ...], p: float) -> Tensor:
        calls.append(None)
        return torch.ones(shape, dtype=torch.bool, device=next(network.parameters()).device)

    def watching(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _, given: seen(name, given[0])

    hooks = [
        layer.register_forward_pre_hook(watching(name)) for name, layer in linear_layers(network).items()
    ]
    before, drawn = torch.get_rng_state(), generators()
    try:
        with torch.no_grad(), Dropout(masks) as mode:
            run()
    finally:
        for hook in hooks:
            hook.remove()
    draws = not torch.equal(before, torch.get_rng_state()) or drawn != generators()
    return Calls(tuple(calls), mode.calls > 0, draws)


def idle(network: nn.Module, names: Collection[str], run: Callable[[], Tensor]) -> frozenset[str]:
    """Modules that a loss does not depend on: they are not called, or what they give is thrown away.

    Args:
        network: whose modules.
        names: of the modules.
        run: calls it and gives the loss.
    """
    device = next(network.parameters()).device
    marks = {name: torch.zeros((), device=device, requires_grad=True) for name in names}

    def marking(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def marked(value: Any) -> Any:
            floating = isinstance(value, Tensor) and value.is_floating_point()
            return value + marks[name].to(value.dtype) if floating else value

        return lambda _, given, out: pytree.tree_map(marked, out)

    hooks = [network.get_submodule(name).register_forward_hook(marking(name)) for name in names]
    try:
        loss = run()
        wanted = list(marks.values()) if loss.requires_grad else []
        found = torch.autograd.grad(loss, wanted, allow_unused=True) if wanted else ()
    finally:
        for hook in hooks:
            hook.remove()
    busy = {name for name, gradient in zip(marks, found, strict=False) if gradient is not None}
    return frozenset(names) - busy

"""Every member's adapter (and head) in stacks: one tensor for all members, smaller ones filled up with zeros.

Zeros stay zeros: a row of A that a member does not have meets a column of B of zeros, so either's gradient is
0, and neither optimizer moves a weight of 0 whose gradient is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from plait.fleet._adapter import Adapter, names
from plait.fleet._trainee import State

Cut = tuple[slice, ...]


@dataclass(frozen=True)
class Slot:
    """Where a member's tensor lies.

    Args:
        stack: which stack.
        cut: which part of the member's row of it.
        turned: whether it lies there transposed.
    """

    stack: int
    cut: Cut
    turned: bool = False

    def of(self, stacks: Mapping[int, Tensor], member: int) -> Tensor:
        """The tensor in stacks laid out like the parameters; a view."""
        found = stacks[self.stack][member][self.cut]
        return found.mT if self.turned else found


@dataclass
class Stacks:
    """The parameters of all members.

    Args:
        parameters: `(members, …)` each.
        slots: for each member, the name in its state → where it lies.
        decays: for each of the parameters, how many dimensions one member's has.
    """

    parameters: list[Tensor] = field(default_factory=list)
    slots: list[dict[str, Slot]] = field(default_factory=list)
    dims: list[int] = field(default_factory=list)

    def add(self, shape: tuple[int, ...], like: Tensor) -> int:
        """A new stack of zeros; its number."""
        members = len(self.slots)
        self.parameters.append(torch.zeros((members, *shape), dtype=like.dtype, device=like.device))
        self.dims.append(len(shape))
        return len(self.parameters) - 1

    def fill(self, states: Sequence[State]) -> None:
        """Take the members' weights."""
        held = dict(enumerate(self.parameters))
        for member, (slots, state) in enumerate(zip(self.slots, states, strict=True)):
            for name, slot in slots.items():
                slot.of(held, member).copy_(state.parameters[name])

    def restore(self, moments: Sequence[Mapping[int, Tensor]], states: Sequence[State]) -> None:
        """Take the members' moments into those of an optimizer, by the numbers of the stacks that it has."""
        for member, (slots, state) in enumerate(zip(self.slots, states, strict=True)):
            for held, kept in zip(moments, state.moments, strict=False):
                for name, value in kept.items():
                    slots[name].of(held, member).copy_(value)

    def read(self, stacks: Mapping[int, Tensor], member: int) -> dict[str, Tensor]:
        """Copies of a member's tensors in stacks laid out like the parameters, by their numbers."""
        return {
            name: slot.of(stacks, member).detach().clone(memory_format=torch.contiguous_format)
            for name, slot in self.slots[member].items()
            if slot.stack in stacks
        }


@dataclass(frozen=True)
class Factors:
    """A group's stacks.

    Args:
        layers: of the base, in the order of their calls.
        down: number of the stack of A of all of them.
        ups: numbers of the stacks of B.
        ranks: each layer's part of the ranks.
        scales: `(members, 1, ranks)`.
    """

    layers: tuple[str, ...]
    down: int
    ups: tuple[int, ...]
    ranks: tuple[slice, ...]
    scales: Tensor


def factors(
    stacks: Stacks, adapters: Sequence[Adapter], layers: Sequence[str],
    sizes: Mapping[str, tuple[int, int]], like: Tensor,
) -> Factors:  # fmt: skip
    """Room for the factors of layers that share an input."""
    widths = [max(a.layers[name].rank for a in adapters if name in a.layers) for name in layers]
    ends = [sum(widths[: i + 1]) for i in range(len(widths))]
    ranks = tuple(slice(end - width, end) for end, width in zip(ends, widths, strict=True))
    down = stacks.add((ends[-1], sizes[layers[0]][0]), like)
    ups = tuple(stacks.add((width, sizes[name][1]), like) for name, width in zip(layers, widths, strict=True))
    scales = torch.zeros((len(adapters), 1, ends[-1]), dtype=like.dtype, device=like.device)
    for member, adapter in enumerate(adapters):
        for name, up, own in zip(layers, ups, ranks, strict=True):
            if name in adapter.layers:
                layer = adapter.layers[name]
                scales[member, 0, own] = layer.scale
                a, b = names(name)
                held = slice(own.start, own.start + layer.rank)
                stacks.slots[member][a] = Slot(down, (held, slice(None)))
                stacks.slots[member][b] = Slot(up, (slice(layer.rank), slice(None)), turned=True)
    return Factors(tuple(layers), down, ups, ranks, scales)


def whole(
    stacks: Stacks, shapes: Sequence[Mapping[str, torch.Size]], prefix: str, like: Tensor
) -> dict[str, int]:
    """Room for modules that each member has a copy of; shapes may differ, and some members have none.

    Args:
        stacks: where.
        shapes: for each member, name in the module → shape.
        prefix: of the names in the state.
        like: a tensor of their type.

    Returns:
        name in the module → number of its stack.
    """
    every = {name: None for own in shapes for name in own}
    found = {}
    for name in every:
        sizes = [own[name] for own in shapes if name in own]
        found[name] = stacks.add(tuple(max(size) for size in zip(*sizes, strict=True)), like)
        for member, own in enumerate(shapes):
            if name in own:
                cut = tuple(slice(size) for size in own[name])
                stacks.slots[member][f"{prefix}{name}"] = Slot(found[name], cut)
    return found

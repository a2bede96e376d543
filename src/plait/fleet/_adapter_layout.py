"""Where every member's trained tensors lie, for members that share a base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from plait.fleet._adapter import HEAD, PREFIX, adapter_type, head
from plait.fleet._adapter_stacks import Factors, Stacks, factors, whole
from plait.fleet._calls import Calls
from plait.fleet._resident import linear_layers, sizes
from plait.fleet._trainee import Trainee


@dataclass
class Layout:
    """Stacks and what they are of.

    Args:
        stacks: the tensors.
        factors: of LoRA, those of layers with one input together.
        saved: name of a module that members train copies of → its parameters → their stacks.
        heads: parameters of the tasks' heads → their stacks.
        modules: each member's head; None if its task has none.
        busy: stacks that a loss depends on; the others are left as they are, as PyTorch's optimizers do.
    """

    stacks: Stacks
    factors: list[Factors]
    saved: dict[str, dict[str, int]]
    heads: dict[str, int]
    modules: list[nn.Module | None]
    busy: list[int]


def lay_out(trainees: Sequence[Trainee], base: nn.Module, calls: Calls, device: torch.device) -> Layout:
    """Room for all that members train.

    Args:
        trainees: the members.
        base: what they share.
        calls: how it calls its layers.
        device: of the stacks.
    """
    adapters = [t.adapter for t in trainees]
    like = torch.zeros((), dtype=adapter_type(base), device=device)
    stacks = Stacks(slots=[{} for _ in trainees])
    layers = linear_layers(base)
    wanted = list(dict.fromkeys(name for a in adapters for name in a.layers))
    # What is dropped differs from layer to layer, so that with dropout none shares its input.
    groups = [(name,) for name in wanted] if any(a.dropout for a in adapters) else calls.groups(wanted)
    shapes = {name: sizes(layers[name]) for name in wanted}
    made = [factors(stacks, adapters, group, shapes, like) for group in groups]
    saved = {}
    for name in dict.fromkeys(name for a in adapters for name in a.saved):
        own = _shapes(base.get_submodule(name))
        parts = [own if name in a.saved else {} for a in adapters]
        saved[name] = whole(stacks, parts, f"{PREFIX}{name}.", like)
    modules = [_head(trainee, base, like) for trainee in trainees]
    heads = whole(stacks, [_shapes(own) if own else {} for own in modules], HEAD, like)
    still = {i for own in made if calls.idle.issuperset(own.layers) for i in (own.down, *own.ups)}
    still |= {i for name, own in saved.items() if name in calls.idle for i in own.values()}
    busy = [i for i in range(len(stacks.parameters)) if i not in still]
    return Layout(stacks, made, saved, heads, modules, busy)


def _head(trainee: Trainee, base: nn.Module, like: Tensor) -> nn.Module | None:
    if trainee.task.head is None:
        return None
    own = head(trainee.task, base).to(like.device)
    own.train()
    return own


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: p.shape for name, p in module.named_parameters()}

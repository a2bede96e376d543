"""A member's LoRA adapter (Hu et al., arXiv:2106.09685): which layers it stands on, made by PEFT itself.

PEFT resolves the targets, ranks and scales and draws the start, on a structure of its own around the base's
weights: so a fleet's members are what PEFT would make of each alone, name for name and number for number.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from plait.errors import InputError, MissingExtra
from plait.fleet._lora_config import check_config, check_targets, no_target
from plait.fleet._member import Member
from plait.fleet._resident import shell
from plait.tasks import Headed, Task

#: What PEFT's names start with.
PREFIX = "base_model.model."
#: What the names of a task's head start with.
HEAD = "head."
#: What PEFT has in its modules' names and not in its files.
_INNER = re.compile(r"(\.lora_[AB])?(?:\.modules_to_save)?\.default(?=\.)")


@dataclass(frozen=True)
class Layer:
    """One layer's part of an adapter.

    Args:
        rank: of its two factors.
        scale: what their product is multiplied by.
    """

    rank: int
    scale: float


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter over a base.

    Args:
        config: PEFT's `LoraConfig` with everything resolved (`all-linear` as names).
        layers: name of the base's layer → what stands on it.
        saved: names of the modules that each member trains a copy of (PEFT's `modules_to_save`).
        dropout: of the adapter's input.
        initial: names as in PEFT's files → its weights at the start, drawn under the member's seed.
    """

    config: Any
    layers: Mapping[str, Layer]
    saved: tuple[str, ...]
    dropout: float
    initial: Mapping[str, Tensor]


def describe(member: Member, base: nn.Module) -> Adapter:
    """The adapter that PEFT makes for a member.

    Raises:
        InputError: a target that matches no layer, a layer or an option that is not supported.
        MissingExtra: PEFT is not installed.
    """
    check_config(member)
    check_targets(member, base)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(member.seed)
        model = _peft_model(member, base)
    layers = {
        name.removeprefix(PREFIX): Layer(module.r["default"], module.scaling["default"])
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }
    saved = tuple(
        name.removeprefix(PREFIX)
        for name, module in model.named_modules()
        if hasattr(module, "modules_to_save") and hasattr(module, "original_module")
    )
    initial = {name: p.detach().clone() for name, p in trained(model).items()}
    if saved and any(p.dtype != adapter_type(base) for p in initial.values()):
        hint = "load the base in float32, or give the task a head of its own"
        raise InputError(
            f"`{saved[0]}` would be trained in 16 bits", where=f"member `{member.name}`", hint=hint
        )
    config = model.peft_config["default"]
    return Adapter(config, layers, saved, float(config.lora_dropout), initial)


def adapted(member: Member, base: nn.Module, task: Task, weights: Mapping[str, Tensor]) -> nn.Module:
    """A PEFT model over the base's own weights, with the task's head; what is trained, `trained` finds.

    Args:
        member: its settings.
        base: shared, not copied.
        task: its task.
        weights: of adapter and head, as a `State` holds them.
    """
    return put(headed(_peft_model(member, base), task, base), weights)


def put(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """The model of `adapted`, given other weights."""
    with torch.no_grad():
        for name, parameter in trained(model).items():
            parameter.copy_(weights[name])
    return model


def headed(model: nn.Module, task: Task, base: nn.Module) -> nn.Module:
    """A model over a base, with a copy of the task's head if it has one."""
    if task.head is None:
        return model
    return Headed(model, head(task, base).to(next(base.parameters()).device), task.meet, task.name)


def initial(adapter: Adapter, task: Task, base: nn.Module) -> dict[str, Tensor]:
    """An adapter's weights at the start, and the task's head's."""
    found = {name: tensor.clone() for name, tensor in adapter.initial.items()}
    if task.head is not None:
        own = head(task, base).named_parameters()
        found |= {f"{HEAD}{name}": p.detach().clone() for name, p in own}
    return found


def head(task: Task, base: nn.Module) -> nn.Module:
    """A copy of the task's head that takes what a base of a short type gives."""
    own = copy.deepcopy(task.head)
    assert own is not None
    own.requires_grad_(True)
    weight = next(own.parameters(), None)
    if weight is not None:
        wide = adapter_type(base)
        own.to(wide)
        own.register_forward_pre_hook(lambda _, given: tuple(x.to(wide) for x in given))
    return own


def adapter_type(base: nn.Module) -> torch.dtype:
    """The type of adapters over a base: its own, but float32 for 16 bits, as with PEFT."""
    own = next((p.dtype for p in base.parameters() if p.is_floating_point()), torch.float32)
    return torch.float32 if own in (torch.bfloat16, torch.float16) else own


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of an adapter (and head) under the names of PEFT's files."""
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found[name if name.startswith(HEAD) else _INNER.sub(r"\1", name.removeprefix("body."))] = (
                parameter
            )
    return found


def names(layer: str) -> tuple[str, str]:
    """PEFT's names of the two factors over a layer."""
    return f"{PREFIX}{layer}.lora_A.weight", f"{PREFIX}{layer}.lora_B.weight"


def _peft_model(member: Member, base: nn.Module) -> Any:
    try:
        from peft import get_peft_model
    except ImportError as error:
        raise MissingExtra("peft", "hf", "training LoRA adapters") from error
    try:
        return get_peft_model(shell(base), copy.deepcopy(member.lora))  # type: ignore[arg-type]
    except ValueError as error:
        raise no_target(member, base, str(error)) from error

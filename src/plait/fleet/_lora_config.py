"""What of PEFT's `LoraConfig` a fleet trains, and one message for what it does not."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from torch import nn

from plait.errors import InputError, MissingExtra, nearest, raise_all
from plait.fleet._member import Member
from plait.fleet._resident import is_linear, linear_layers

#: Fields whose every value is taken.
_TAKEN = {
    *("r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "fan_in_fan_out"),
    *("use_rslora", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern"),
    *("modules_to_save", "init_lora_weights", "task_type", "inference_mode", "runtime_config"),
    *("base_model_name_or_path", "revision", "auto_mapping", "peft_type", "peft_version"),
}
#: Starts that leave the base's weights alone.
_STARTS = (True, False, "gaussian", "orthogonal")


def check_config(member: Member) -> None:
    """Refuse what is no `LoraConfig`, and options that change more than two factors.

    Raises:
        InputError: all of them together.
        MissingExtra: PEFT is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise MissingExtra("peft", "hf", "training LoRA adapters") from error
    where, config = f"member `{member.name}`", member.lora
    if type(config) is not LoraConfig:
        told = "is missing" if config is None else f"is a {type(config).__name__}"
        hint = "the adapters' backend trains LoRA: give lora=peft.LoraConfig(r=8, target_modules=…)"
        raise InputError(f"`lora` {told}", where=where, hint=hint)
    plain = LoraConfig()
    other = [
        entry.name
        for entry in dataclasses.fields(config)
        if entry.name not in _TAKEN and getattr(config, entry.name) != getattr(plain, entry.name)
    ]
    hint = "leave it out; a fleet's adapters are plain LoRA"
    problems = [
        InputError(f"LoRA option `{name}` is {getattr(config, name)!r}, which fleets do not train",
                   where=where, hint=hint)
        for name in other
    ]  # fmt: skip
    if config.init_lora_weights not in _STARTS:
        told = ", ".join(str(start) for start in _STARTS)
        problems.append(
            InputError(
                f"LoRA option `init_lora_weights` is `{config.init_lora_weights}`, which changes the base",
                where=where,
                hint=f"members share one base; choose one of {told}",
            )
        )
    raise_all(problems)


def check_targets(member: Member, base: nn.Module) -> None:
    """Refuse targets that match no layer, and layers that are not linear.

    Raises:
        InputError: names the target or layer.
    """
    targets = member.lora.target_modules
    where = f"member `{member.name}`"
    if isinstance(targets, set | list | tuple):
        modules = [name for name, _ in base.named_modules()]
        lost = [t for t in sorted(targets) if not any(_ends(name, t) for name in modules)]
        if lost:
            raise _unmatched(lost, member, base)
    for name, module in _matched(member, base):
        if not is_linear(module):
            hint = "LoRA stands on nn.Linear and transformers' Conv1D; leave the layer out of target_modules"
            raise InputError(
                f"LoRA on `{name}`, a {type(module).__name__}, is not supported", where=where, hint=hint
            )


def _matched(member: Member, base: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules that PEFT would take for targets; none where PEFT has yet to resolve them."""
    from peft.tuners.tuners_utils import check_target_module_exists

    config = member.lora
    if config.target_modules is None or config.target_modules == "all-linear":
        return []
    return [
        (name, module)
        for name, module in base.named_modules()
        if name and check_target_module_exists(config, name)
    ]


def _named(member: Member, base: nn.Module) -> bool:
    """Whether targets match a layer of the base, whatever is excluded."""
    config = copy.copy(member.lora)
    config.exclude_modules = None
    if config.target_modules == "all-linear":
        return bool(linear_layers(base))
    return bool(_matched(dataclasses.replace(member, lora=config), base))


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _unmatched(targets: list[str], member: Member, base: nn.Module) -> InputError:
    ends = {name.rpartition(".")[2] for name in linear_layers(base)}
    told = ", ".join(f"`{target}`" for target in targets)
    close = nearest(targets[0].rpartition(".")[2], ends)
    listed = "its linear layers end in " + ", ".join(f"`{end}`" for end in sorted(ends))
    hint = f"{close} {listed}" if close.startswith("did") else listed if ends else "it has no linear layer"
    return InputError(f"LoRA target {told} matches no layer of the base", where=f"member `{member.name}`",
                      hint=hint)  # fmt: skip


def no_target(member: Member, base: nn.Module, reason: str) -> InputError:
    """What PEFT refused, in our words where targets are at fault and in PEFT's where not."""
    targets: Any = member.lora.target_modules
    if "not found in the base model" in reason or "No modules were targeted" in reason:
        if member.lora.exclude_modules and _named(member, base):
            excluded: Any = member.lora.exclude_modules
            told = excluded if isinstance(excluded, str) else ", ".join(sorted(excluded))
            what = f"`exclude_modules` ({told}) leaves out every layer that `target_modules` names"
            hint = "name fewer, or leave it out"
            return InputError(what, where=f"member `{member.name}`", hint=hint)
        return _unmatched([targets] if isinstance(targets, str) else sorted(targets or ()), member, base)
    return InputError(f"PEFT refuses this LoRA: {reason}", where=f"member `{member.name}`",
                      hint="see the options of peft.LoraConfig")  # fmt: skip

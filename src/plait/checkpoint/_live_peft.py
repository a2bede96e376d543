"""A live PEFT model under its base's names, with its LoRA adapters merged as tensors are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from plait.checkpoint._tensor import LazyTensor, ReadFlat, Shape
from plait.errors import InputError

Build = Callable[[str], LazyTensor]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class AdaptedTensor(ReadFlat):
    """The weight of a layer with its active adapters' deltas added in float32, rounded once.

    Attributes:
        name: its name in the base.
        weight: the base's weight.
        layer: the PEFT layer that wears the adapters.
        adapters: those that are active.
    """

    name: str
    weight: Tensor
    layer: Any
    adapters: tuple[str, ...]

    @property
    def shape(self) -> Shape:
        return tuple(self.weight.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype

    @property
    def nbytes(self) -> int:
        return self.weight.numel() * self.weight.dtype.itemsize

    def read_flat(self, start: int, stop: int) -> Tensor:
        return _merged(self)[start:stop].clone()

    def read_into(self, out: Tensor, start: int) -> None:
        """Fill `out` (1-D, CPU, of this dtype) with the elements from `start` on."""
        out.copy_(_merged(self)[start : start + len(out)])


@lru_cache(maxsize=4)  # the blocks of one tensor are read one after the other
def _merged(tensor: AdaptedTensor) -> Tensor:
    with torch.no_grad():
        total = tensor.weight.detach().float()
        for adapter in tensor.adapters:
            total = total + tensor.layer.get_delta_weight(adapter).float()
        return total.to(tensor.dtype).cpu().reshape(-1)


def peft_state(module: nn.Module, where: str) -> tuple[nn.Module, dict[str, Tensor], dict[str, Build]]:
    """The model inside, its state dict under the base's own names, and how adapted weights are built.

    Raises:
        InputError: an adapter is of a kind that does not add to one weight at a time.
    """
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import ModulesToSaveWrapper

    model = cast(nn.Module, module.get_base_model()) if isinstance(module, PeftModel) else module
    inside: dict[str, str] = {}
    deltas: dict[str, Build] = {}
    for name, part in model.named_modules():
        if isinstance(part, ModulesToSaveWrapper):
            active = part.active_adapters[0] if part.active_adapters else None
            chosen = f"modules_to_save.{active}" if str(active) in part.modules_to_save else "original_module"
            inside[f"{name}."] = f"{name}.{chosen}."
        elif isinstance(part, BaseTunerLayer):
            adapters = _adapters(name, part, where)
            inside[f"{name}."] = f"{name}.base_layer."
            if adapters:
                deltas[f"{name}.weight"] = _builder(part, adapters)
    return model, _rename(cast(dict[str, Tensor], model.state_dict()), inside), deltas


def _builder(layer: Any, adapters: tuple[str, ...]) -> Build:
    return lambda name: AdaptedTensor(name, layer.get_base_layer().weight, layer, adapters)


def _adapters(name: str, layer: Any, where: str) -> tuple[str, ...]:
    """The active adapters that are not merged into the layer's weight already."""
    from peft.tuners.lora import LoraLayer

    if layer.merged or layer.disable_adapters:
        return ()
    adapters = tuple(a for a in layer.active_adapters if a in getattr(layer, "scaling", {}))
    plain = isinstance(layer, LoraLayer) and isinstance(
        getattr(layer.get_base_layer(), "weight", None), Tensor
    )
    variants = getattr(layer, "lora_variant", {})
    biased = getattr(layer, "lora_bias", {})
    if not plain or any(a in variants or biased.get(a) for a in adapters):
        raise InputError(
            f"the adapter of `{name}` ({type(layer).__name__}) can't be merged one tensor at a time",
            where=where,
            hint="call `merge_and_unload()` first",
        )
    return adapters


def _rename(state: dict[str, Tensor], inside: dict[str, str]) -> dict[str, Tensor]:
    """Without wrappers: `inside` says for each wrapped module's prefix where its own weights lie."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        owner = next((prefix for prefix in _ancestors(name) if prefix in inside), None)
        if owner is None:
            found[name] = tensor
        elif name.startswith(inside[owner]):
            found[owner + name.removeprefix(inside[owner])] = tensor
    return found


def _ancestors(name: str) -> list[str]:
    """Every module prefix of a name, outermost first."""
    return [name[: k + 1] for k, sign in enumerate(name) if sign == "."]

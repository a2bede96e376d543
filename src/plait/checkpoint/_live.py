"""A model in memory: a module, a PEFT model or a state dict, under the names that saving it would write."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import Tensor, nn

from plait.checkpoint._extras import live_extras
from plait.checkpoint._json import some
from plait.checkpoint._memory import MemoryTensor
from plait.checkpoint._pickle import dense_state_dict, identity
from plait.checkpoint._tensor import Checkpoint, LazyTensor
from plait.errors import InputError

State = dict[str, Tensor]


def open_live(source: object) -> Checkpoint:
    """Open what is in memory; tensors are shared with it, so later changes of it are seen.

    A transformers model gets the names and shapes that `save_pretrained` writes (fused 3-D experts become
    one tensor per expert), a `PeftModel` with LoRA the names of its base with the adapters merged in as
    they are read.

    Args:
        source: a module, a mapping of names to tensors, or a mapping of names to lazy tensors.

    Raises:
        InputError: it is none of these, lies on the meta device, or wears adapters that can't be merged
            one tensor at a time.
    """
    if isinstance(source, nn.Module):
        return _open_module(source)
    if isinstance(source, Mapping):
        if source and all(_is_lazy(value) for value in source.values()):
            return Checkpoint("tensors in memory", dict(source))
        tensors, tied = _share(dense_state_dict(source, "the state dict"))
        _check_values(tensors, "the state dict")
        return Checkpoint("a state dict in memory", _lazy(tensors), tied=tied)
    raise InputError(
        f"a {type(source).__name__} can't be opened as a model",
        hint="give a path, a hub id, a module or a state dict",
    )


def _open_module(module: nn.Module) -> Checkpoint:
    name = f"a {type(module).__name__} in memory"
    if _is_peft(module):
        from plait.checkpoint._live_peft import peft_state

        model, state, deltas = peft_state(module, name)
    else:
        model, deltas = module, {}
        state = cast(State, module.state_dict())
    tensors, tied = saved_state(model, dense_state_dict(state, name), name)
    _check_values(tensors, name)
    lazy = _lazy(tensors)
    for weight, build in deltas.items():
        places = [key for key, tensor in tensors.items() if identity(tensor) == identity(state[weight])]
        if not places:
            raise InputError(
                f"`{weight}` wears an adapter and is saved in another form than it has in memory",
                where=name,
                hint="call `merge_and_unload()` first",
            )
        lazy[places[0]] = build(places[0])
    return Checkpoint(name, lazy, _config(model), tied=tied, extras=live_extras(model))


def _is_lazy(value: object) -> bool:
    # a tensor is asked first: a sparse one raises when it is asked for what the protocol lists
    return not isinstance(value, Tensor) and isinstance(value, LazyTensor)


def _check_values(state: State, where: str) -> None:
    on_meta = [name for name, tensor in state.items() if tensor.is_meta]
    if on_meta:
        raise InputError(f"tensors are on the meta device, without values: {some(on_meta)}", where=where)


def _is_peft(module: nn.Module) -> bool:
    peft = sys.modules.get("peft.tuners.tuners_utils")
    return peft is not None and any(isinstance(part, peft.BaseTunerLayer) for part in module.modules())


def _lazy(tensors: Mapping[str, Tensor]) -> dict[str, LazyTensor]:
    return {name: MemoryTensor(name, tensor) for name, tensor in tensors.items()}


def _share(state: State) -> tuple[State, dict[str, str]]:
    """Each memory once, under its first name, and the other names as aliases."""
    first: dict[object, str] = {}
    tied: dict[str, str] = {}
    for name, tensor in state.items():
        stored = first.setdefault(identity(tensor) if tensor.numel() else name, name)
        if stored != name:
            tied[name] = stored
    return {name: tensor for name, tensor in state.items() if name not in tied}, tied


def saved_state(module: nn.Module, state: State, where: str) -> tuple[State, dict[str, str]]:
    """The tensors that saving the module would write, and alias → written name of tied ones."""
    transformers = sys.modules.get("transformers.modeling_utils")
    if transformers is None or not isinstance(module, transformers.PreTrainedModel):
        return _share(state)
    for ignored in getattr(module, "_keys_to_ignore_on_save", None) or ():
        state.pop(ignored, None)
    try:
        kept = transformers.remove_tied_weights_from_state_dict(dict(state), module)
    except RuntimeError:  # shared in a way that the class does not declare: any of the names will do
        kept = _share(state)[0]
    convert = _conversion(where)
    written = convert(module, kept)
    if len(kept) == len(state):
        return written, {}
    homes = {identity(tensor): name for name, tensor in written.items()}
    everything = convert(module, state)
    aliases = {name: homes.get(identity(everything[name])) for name in everything if name not in written}
    return written, {alias: name for alias, name in aliases.items() if name is not None}


def _conversion(where: str) -> Callable[[nn.Module, State], State]:
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # transformers before 5 keeps the same names in memory and on disk
        return lambda _, state: state

    def convert(module: nn.Module, state: State) -> State:
        try:
            return revert_weight_conversion(cast(Any, module), state)
        except Exception as error:
            raise InputError(
                f"transformers can't give it the names it is saved under: {error}", where=where
            ) from error

    return convert


def _config(module: nn.Module) -> dict[str, Any]:
    config = getattr(module, "config", None)
    if isinstance(config, Mapping):
        return dict(config)
    if not hasattr(config, "to_dict"):
        return {}
    found = dict(cast(Any, config).to_dict())
    if not found.get("architectures"):
        found["architectures"] = [type(module).__name__]
    return found

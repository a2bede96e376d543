"""A checkpoint's tensors into a module of its architecture."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from plait.checkpoint._json import some
from plait.checkpoint._live import open_live
from plait.checkpoint._tensor import Checkpoint, LazyTensor
from plait.errors import InputError, nearest

Given = dict[str, LazyTensor]


def load_into(module: nn.Module, checkpoint: Checkpoint) -> nn.Module:
    """Give a module a checkpoint's weights, in the module's own types and on its own device.

    Names are those under which the module would be saved. What is tied in the module and not in the
    checkpoint is untied. Buffers that are not saved may be in the checkpoint, and are left as they are.

    Args:
        module: changed in place.
        checkpoint: full weights.

    Returns:
        the module; a new one where transformers keeps other tensors in memory than on disk.

    Raises:
        InputError: tensors are missing, unexpected or of other shapes, all in one message; nothing is
            changed then.
    """
    wanted = open_live(module)
    given = _renamed(wanted, checkpoint)
    _check(module, wanted, given, checkpoint.reference)
    held: Mapping[str, Tensor] = module.state_dict(keep_vars=True)
    if any(name not in held or tuple(held[name].shape) != wanted[name].shape for name in wanted):
        return _converted(module, given)
    with torch.no_grad():
        for name in wanted:
            held[name].copy_(given[name].read())
        for alias, name in wanted.tied.items():
            if alias in given and given[alias] is not given[name]:
                _untie(module, alias, given[alias].read())
    return module


def _renamed(wanted: Checkpoint, checkpoint: Checkpoint) -> Given:
    """The checkpoint's tensors, tied ones under each of their names, and under those the module saves."""
    given = dict(checkpoint.tensors)
    for alias, name in checkpoint.tied.items():
        given.setdefault(alias, checkpoint[name])
    for alias, name in wanted.tied.items():
        if name not in given and alias in given:
            given[name] = given[alias]
    return given


def _check(module: nn.Module, wanted: Checkpoint, given: Given, where: str) -> None:
    missing = [name for name in wanted if name not in given]
    ignored = set(wanted.tied) | _left_to_the_module(module, given)
    unexpected = [name for name in given if name not in wanted and name not in ignored]
    shapes = [
        f"`{name}` is {list(given[name].shape)} and not {list(wanted[name].shape)}"
        for name in wanted
        if name in given and tuple(given[name].shape) != tuple(wanted[name].shape)
    ]
    told = [f"{kind} {some(names)}" for kind, names in (("lacks", missing), ("has", unexpected)) if names]
    if shapes:
        more = f" and {len(shapes) - 3} more" if len(shapes) > 3 else ""
        told.append("; ".join(shapes[:3]) + more)
    if told:
        raise InputError(
            f"this is no checkpoint of the {type(module).__name__} that it should fill: " + "; ".join(told),
            where=where,
            hint=_hint(missing, unexpected),
        )


def _left_to_the_module(module: nn.Module, given: Given) -> set[str]:
    """Names of a checkpoint that a module does without: buffers that it does not save, and old ones.

    Of a transformers model, as transformers does it, also parts that its class can be made without (a pooler,
    a head): those beside all that it has. Not more layers than it has, which lie within what it has.
    """
    saved = module.state_dict().keys()
    own = {name: tuple(buffer.shape) for name, buffer in module.named_buffers() if name not in saved}
    patterns: Iterable[str] = getattr(module, "_keys_to_ignore_on_load_unexpected", None) or ()
    parts = {name.partition(".")[0] for name in saved} if _is_transformers(module) else None
    return {
        name
        for name, tensor in given.items()
        if own.get(name) == tuple(tensor.shape)
        or any(re.search(pattern, name) for pattern in patterns)
        or (parts is not None and name.partition(".")[0] not in parts)
    }


def _is_transformers(module: nn.Module) -> bool:
    transformers = sys.modules.get("transformers.modeling_utils")
    return transformers is not None and isinstance(module, transformers.PreTrainedModel)


def _hint(missing: list[str], unexpected: list[str]) -> str:
    if missing and unexpected:
        close = nearest(missing[0], unexpected)
        if close.startswith("did you mean"):
            return f"for `{missing[0]}`: {close}"
    return "give a checkpoint of the same architecture, with the names that the module saves"


def _untie(module: nn.Module, name: str, value: Tensor) -> None:
    """Give a tied parameter a memory of its own."""
    owner, _, leaf = name.rpartition(".")
    parent = module.get_submodule(owner)
    old = getattr(parent, leaf)
    new = value.to(device=old.device, dtype=old.dtype, copy=True)
    setattr(parent, leaf, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)


def _converted(module: nn.Module, given: Given) -> nn.Module:
    """A transformers module whose tensors on disk are not those in memory, made anew by transformers."""
    assert _is_transformers(module)
    like = next(module.parameters())
    model = cast(Any, type(module)).from_pretrained(
        None,
        config=cast(Any, module).config,
        state_dict={name: tensor.read() for name, tensor in given.items()},
        dtype=like.dtype,
    )
    return model.to(like.device).train(module.training)

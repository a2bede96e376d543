"""Quantised checkpoints: FP8 with scales is dequantised as it is read, others are refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch

from plait.checkpoint._scaled import ScaledTensor, block_shape
from plait.checkpoint._tensor import Checkpoint, LazyTensor
from plait.errors import InputError, raise_all

_FLOAT8 = {
    dtype
    for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
    if (dtype := getattr(torch, name, None)) is not None
}
#: Values of `quant_method` under which weights may be FP8 with scales; the tensors decide.
_MAYBE_FP8 = {"fp8", "fbgemm_fp8", "compressed-tensors", "modelopt"}
#: What the names of quantised tensors end with, per kind.
_TRACES = {
    "bitsandbytes": (".absmax", ".quant_map", ".SCB", ".weight_format", ".quant_state.bitsandbytes__nf4"),
    "GPTQ": (".g_idx",),
    "GPTQ or AWQ": (".qweight", ".qzeros"),
    "compressed-tensors": (".weight_packed", ".weight_zero_point"),
    "MXFP4": ("_proj_blocks", "_proj_scales"),
}
#: A tensor's scale is called like it, with one of these behind.
_SCALES = ("_scale_inv", "_scale")
_OF_ACTIVATIONS = ("input_scale", "activation_scale", "input_global_scale")
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_HINT = "dequantise it first (in transformers: `model.dequantize()`, then `save_pretrained`)"


def dequantized(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with FP8 weights multiplied by their scales, in the config's own float type.

    Float8 tensors without scales, where the config says nothing of quantisation, are plain tensors and stay.

    Args:
        checkpoint: as its files hold it.

    Returns:
        The same, or one without scales, without activation scales and without `quantization_config`.

    Raises:
        InputError: its weights are quantised in another way, or scales are missing or of a wrong shape.
    """
    said = _said(checkpoint.config)
    method = str(said.get("quant_method", "")) if said is not None else None
    if method is not None and method not in _MAYBE_FP8:
        raise _refusal(checkpoint, method or "an unnamed method")
    kind = _kind_by_names(checkpoint)
    if kind is not None:
        raise _refusal(checkpoint, method or kind)
    scales = {name: scale for name in checkpoint if (scale := _scale_of(name, checkpoint)) is not None}
    if method is None and not any(checkpoint[name].dtype in _FLOAT8 for name in scales):
        return checkpoint
    config = {key: value for key, value in checkpoint.config.items() if key != "quantization_config"}
    return replace(checkpoint, tensors=_apply(checkpoint, scales, method, said or {}), config=config)


def _said(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The config's words on quantisation, also where they stand in its part for text."""
    inner = (value for key, value in config.items() if key.endswith("_config") and isinstance(value, Mapping))
    for part in (config, *inner):
        for key in ("quantization_config", "compression_config"):
            if isinstance(part.get(key), Mapping):
                return part[key]
    return None


def _refusal(checkpoint: Checkpoint, kind: str) -> InputError:
    return InputError(f"its weights are quantised ({kind}) and can't be merged as they are",
                      where=checkpoint.reference, hint=_HINT)  # fmt: skip


def _kind_by_names(names: Iterable[str]) -> str | None:
    ends = tuple(end for group in _TRACES.values() for end in group)
    found = {name for name in names if name.endswith(ends)}
    return next((kind for kind, group in _TRACES.items() if any(n.endswith(group) for n in found)), None)


def _scale_of(name: str, tensors: Mapping[str, LazyTensor]) -> str | None:
    """The name of the scale of an FP8 or integer tensor."""
    dtype = tensors[name].dtype
    if dtype not in _FLOAT8 and dtype.is_floating_point:
        return None
    return next((name + end for end in _SCALES if name + end in tensors), None)


def _apply(
    checkpoint: Checkpoint, scales: Mapping[str, str], method: str | None, said: Mapping[str, Any]
) -> dict[str, LazyTensor]:
    size = said.get("weight_block_size") or _group_block(said) or [128, 128]
    if not isinstance(size, list):
        what = f"its config says {size!r:.80} where a block's rows and columns belong"
        raise InputError(what, where=checkpoint.reference)
    named = checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype")
    dtype = _DTYPES.get(str(named), torch.bfloat16)
    modules = {name.rpartition(".")[0] for name in scales}
    gone = set(scales.values()) | {f"{module}.{end}" for module in modules for end in _OF_ACTIVATIONS}
    problems: list[InputError] = []
    found: dict[str, LazyTensor] = {}
    for name, tensor in checkpoint.items():
        where = f"{checkpoint.reference}: tensor `{name}`"
        if name in gone:
            continue
        found[name] = tensor
        if name in scales and tensor.dtype in _FLOAT8:
            scale = checkpoint[scales[name]]
            blocks = block_shape(tensor.shape, scale.shape, tuple(size))
            if blocks is None:
                text = f"its scale {scale.shape} does not fit its shape {tensor.shape}"
                problems.append(InputError(text, where=where))
            else:
                found[name] = ScaledTensor(name, tensor, scale, blocks, dtype)
        elif name in scales:
            problems.append(InputError(f"it is quantised to {tensor.dtype}", where=where, hint=_HINT))
        elif tensor.dtype in _FLOAT8 and method is not None:
            problems.append(InputError("it is FP8 and has no scale", where=where))
    raise_all(problems)
    return found


def _group_block(said: Mapping[str, Any]) -> Any:
    """compressed-tensors' block size, which it keeps per group of layers."""
    groups = said.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping) and weights.get("block_structure"):
            return weights["block_structure"]
    return None

"""A PEFT adapter folder: its config and its weights, written beside its place and renamed into it."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from plait.checkpoint import Checkpoint, save_tensors
from plait.engine._lora_kinds import Kind, matrix_kinds, task_type, tied_embeddings
from plait.errors import InputError


def adapter_config(
    base: Checkpoint,
    modules: Mapping[str, tuple[Kind, int]],
    *,
    rank: int,
    alpha: float,
    biases: bool,
    saved: Sequence[str],
) -> dict[str, Any]:
    """adapter_config.json.

    Args:
        base: the base model, which the config names.
        modules: module → kind and rank; ranks cut by a matrix's size keep alpha / rank.
        rank: of the other modules.
        alpha: LoRA's alpha at that rank.
        biases: whether the adapter holds biases.
        saved: modules that it holds whole.
    """
    targets = list(modules)
    smaller = {module: own for module, (_, own) in modules.items() if own != rank}
    kinds = {kind for kind, _ in modules.values()}
    tied = tied_embeddings(base, matrix_kinds(base)) & set(targets)
    return {
        "peft_type": "LORA",
        "task_type": task_type(base.config),
        "base_model_name_or_path": base.reference.partition("@")[0] if base.revision else base.reference,
        "revision": base.revision,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": _short_names(targets, {name.rpartition(".")[0] for name in base}),
        "rank_pattern": {_pattern(module): own for module, own in smaller.items()},
        "alpha_pattern": {_pattern(module): alpha * own / rank for module, own in smaller.items()},
        "fan_in_fan_out": "transposed" in kinds,
        "bias": "all" if biases else "none",
        "modules_to_save": sorted(saved) or None,
        # a tied head follows its embedding, as in the fine-tuned model
        "ensure_weight_tying": bool(tied),
        "init_lora_weights": True,
    }


def _pattern(module: str) -> str:
    """A regular expression that PEFT matches with this module alone."""
    return "^" + module.replace(".", r"\.") + "$"


def _short_names(targets: Sequence[str], modules: set[str]) -> list[str]:
    """The last words of the targets where these hit nothing else, as people write it; else full names."""
    last = {target.rpartition(".")[2] for target in targets}
    hits = {module for module in modules if module.rpartition(".")[2] in last}
    return sorted(last) if hits == set(targets) else sorted(targets)


def write_adapter(out: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """The folder, written beside its place and renamed into it."""
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.mkdir(parents=True)
        file = partial / "adapter_model.safetensors"
        save_tensors(dict(sorted(tensors.items())), file, {"format": "pt"})
        (partial / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        if out.is_dir():
            out.rmdir()
        os.replace(partial, out)
    except OSError as error:
        raise InputError(f"it can't be written: {error.strerror or error}", where=str(out)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)

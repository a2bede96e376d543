"""A LoRA adapter over its base as full weights, read lazily; or alone, as its low-rank factors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from blake3 import blake3

from plait.checkpoint import _adapter_kohya, _adapter_peft
from plait.checkpoint._adapter_config import CONFIG, AdapterConfig, read_adapter_config
from plait.checkpoint._json import read_json
from plait.checkpoint._lora_tensors import renamed
from plait.checkpoint._sidecars import find_sidecars
from plait.checkpoint._tensor import Checkpoint, LazyTensor
from plait.checkpoint._vocabulary import find_embeddings
from plait.checkpoint._weights import WeightFile, open_weights
from plait.errors import InputError

_PEFT_FILES = ("adapter_model.safetensors", "adapter_model.bin")


def is_adapter(folder: Path) -> bool:
    """Whether a path is a PEFT adapter folder, or a LoRA file (or a folder of one) of kohya or Diffusers."""
    if (folder / CONFIG).is_file():
        return True
    file = _lone_file(folder)
    if file is None:
        return False
    try:
        return _adapter_kohya.is_kohya(open_weights(file).tensors)
    except InputError:
        return False


def adapter_base(folder: Path) -> str | None:
    """The base that an adapter's config names, with its revision as `name@revision`; None if it names none.

    Raises:
        InputError: the config can't be read.
    """
    path = folder / CONFIG
    if not path.is_file():
        return None
    raw = read_json(path)
    base, revision = raw.get("base_model_name_or_path"), raw.get("revision")
    if not isinstance(base, str) or not base:
        return None
    return f"{base}@{revision}" if isinstance(revision, str) and revision else base


def open_adapter(base: Checkpoint, folder: Path) -> Checkpoint:
    """An adapter over its base as full weights, computed when read.

    The result is what the adapter does in a forward pass: where it changes a tied weight in one of its
    two places, the result is untied and its config says so. A head that the base neither stores nor lists as
    tied, and that the adapter does not name, follows its embedding, as in PEFT's own merge.

    Args:
        base: the model it was trained on.
        folder: a PEFT adapter folder, or a LoRA file (or a folder of one) of kohya or Diffusers.

    Raises:
        InputError: no adapter, one of another kind, or one that does not fit the base; all problems at
            once.
    """
    file, weights = _open_file(folder)
    if (folder / CONFIG).is_file():
        config = read_adapter_config(folder)
        adapter = _adapter_peft.sort_tensors(weights.tensors)
        base = replace(base, tied={**_implied_ties(base, adapter), **base.tied})

        def source(name: str) -> LazyTensor:
            return base[name] if name in base else renamed(base[base.tied[name]], name)

        names = {*base, *base.tied}
        changed = _adapter_peft.change_tensors(adapter, config, names, source, str(file))
    else:
        config = AdapterConfig()
        changed = _adapter_kohya.change_tensors(weights.tensors, base, str(file))
    tensors, tied = _untie(base, changed, config)
    fingerprint = {**base.fingerprint, f"{folder.name}/{file.name}": weights.fingerprint}
    if (folder / CONFIG).is_file():  # rank and alpha count as much as the factors
        fingerprint[f"{folder.name}/{CONFIG}"] = blake3((folder / CONFIG).read_bytes()).hexdigest()[:32]
    return replace(
        base,
        reference=f"{base.reference}+{folder}",
        tensors=tensors,
        tied=tied,
        config=base.config if len(tied) == len(base.tied) else _untied_config(base.config),
        fingerprint=fingerprint,
        adapter=folder if folder.is_dir() else folder.parent,
    )


def open_adapter_alone(folder: Path) -> Checkpoint:
    """An adapter's tensors under their own names; `config` is its adapter_config.json (`{}` if none).

    Raises:
        InputError: no adapter there, or a corrupt one.
    """
    file, weights = _open_file(folder)
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    home = folder if folder.is_dir() else None
    return Checkpoint(
        reference=str(folder),
        tensors=weights.tensors,
        config=config,
        folder=home,
        sidecars=find_sidecars(folder) if home else (),
        fingerprint={file.name: weights.fingerprint},
    )


def _open_file(folder: Path) -> tuple[Path, WeightFile]:
    options = [folder / name for name in _PEFT_FILES] if (folder / CONFIG).is_file() else [_lone_file(folder)]
    file = next((path for path in options if path is not None and path.is_file()), None)
    if file is None:
        hint = f"an adapter folder holds {CONFIG} and {_PEFT_FILES[0]}"
        raise InputError("no adapter's weights lie here", where=str(folder), hint=hint)
    return file, open_weights(file)


def _lone_file(folder: Path) -> Path | None:
    """The file itself, or the only safetensors file of a folder that is no model."""
    if folder.is_file():
        return folder if folder.suffix == ".safetensors" else None
    if not folder.is_dir() or (folder / "config.json").exists():
        return None
    files = sorted(folder.glob("*.safetensors"))
    return files[0] if len(files) == 1 else None


def _implied_ties(base: Checkpoint, adapter: _adapter_peft.PeftTensors) -> dict[str, str]:
    """Weights that the adapter changes and the base stores only as the embedding they are tied to."""
    if not base.config.get("tie_word_embeddings", True):
        return {}
    wanted = {name: tensor.shape for name, tensor in adapter.replaced.items()}
    for module, roles in adapter.parts.items():
        if "lora_A" in roles and "lora_B" in roles:
            wanted[f"{module}.weight"] = (roles["lora_B"].shape[0], roles["lora_A"].shape[-1])
    ties: dict[str, str] = {}
    embeddings = find_embeddings(base, base.config)
    for name, shape in wanted.items():
        if name in base or len(shape) != 2:
            continue
        stored = [other for other in embeddings if base[other].shape == shape]
        if len(stored) == 1 and not any(other.endswith(f".{name}") for other in base):
            ties[name] = stored[0]
    return ties


def _untie(
    base: Checkpoint, changed: Mapping[str, LazyTensor], config: AdapterConfig
) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """The result's tensors, and which of the base's tied names still stand for the same tensor."""
    tensors = dict(base.tensors)
    tensors.update((name, tensor) for name, tensor in changed.items() if name not in base.tied)
    tied: dict[str, str] = {}
    for alias, stored in base.tied.items():
        # PEFT itself trains tokens in both places of a tied weight, and others where it was asked to
        together = config.ensure_weight_tying or bool(config.trainable_token_indices)
        if alias not in changed and (stored not in changed or together):
            tied[alias] = stored
        else:
            tensors[alias] = changed.get(alias) or renamed(base[stored], alias)
    return tensors, tied


def _untied_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with every statement that embeddings are tied turned round."""
    out = dict(config)
    out["tie_word_embeddings"] = False
    for key, value in config.items():
        if isinstance(value, Mapping) and "tie_word_embeddings" in value:
            out[key] = {**value, "tie_word_embeddings": False}
    return out

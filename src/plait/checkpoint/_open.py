"""Open anything: which reader a reference goes to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from plait.checkpoint._files import unreadable
from plait.checkpoint._folder import join, open_folder
from plait.checkpoint._index import open_index
from plait.checkpoint._quantized import dequantized
from plait.checkpoint._reference import Part, Reference, exists, is_hub_id, is_url, parse_reference
from plait.checkpoint._tensor import Checkpoint
from plait.checkpoint._weights import TORCH_SUFFIXES, open_weights
from plait.errors import InputError, nearest

if TYPE_CHECKING:
    from torch import nn

_SUFFIXES = {".safetensors", ".gguf", *TORCH_SUFFIXES}
#: What stands for a checkpoint; torch.nn is imported by those who have a module.
Openable: TypeAlias = "str | os.PathLike[str] | nn.Module | Mapping[str, Any] | Checkpoint"


def open_checkpoint(reference: Openable, *, revision: str | None = None) -> Checkpoint:
    """Open a model as a read-only mapping from names to lazy tensors; no weight is read.

    Args:
        reference: a `.safetensors`, PyTorch or `.gguf` file; a folder (Hugging Face, sharded or not, PEFT
            adapter, Diffusers); a hub id or `hf://…`; any fsspec URL; two of these joined as
            `base+adapter`; a live module, `PeftModel` or state dict; a checkpoint, which is returned.
        revision: the hub's branch, tag or commit, where the reference names none itself.

    Returns:
        The checkpoint, whose `reference` is as given, and whose `revision` is the hub commit found.

    Raises:
        InputError: nothing is there, or what is there is at fault; all problems of a folder at once.
        MissingExtra: a package that reading it needs is not installed.
    """
    if isinstance(reference, Checkpoint):
        return reference
    if isinstance(reference, str):
        return _open_words(reference, revision)
    if isinstance(reference, os.PathLike):
        return _open_path(Path(os.fspath(reference)), str(reference))
    from plait.checkpoint._live import open_live

    return dequantized(open_live(reference))


def open_model(reference: Openable, *, revision: str | None = None) -> Checkpoint:
    """As `open_checkpoint`, but always full weights: an adapter alone is laid over the base that it names.

    Raises:
        InputError: as `open_checkpoint`; or the adapter names no base.
    """
    if not isinstance(reference, (str, os.PathLike)):
        return open_checkpoint(reference, revision=revision)
    text = os.fspath(reference)
    parsed = parse_reference(text) if isinstance(reference, str) else Reference(Part(text))
    if parsed.adapter is not None or not text.strip():
        return open_checkpoint(reference, revision=revision)
    from plait.checkpoint._adapter import adapter_base, is_adapter, open_adapter

    path, found = _locate(parsed.model, revision)
    if not is_adapter(path) or _has_model(path):
        return replace(_open_path(path, text), reference=text, revision=found)
    base = adapter_base(path)
    if base is None:
        raise InputError("this adapter names no base", where=text, hint=f"write it as `BASE+{text}`")
    beside = path / base
    opened = open_checkpoint(beside if not exists(base) and beside.is_dir() else base)
    full = open_adapter(opened, path)
    return replace(full, reference=text, revision=_commits(opened.revision, found))


def _open_words(text: str, revision: str | None) -> Checkpoint:
    if not text.strip():
        raise InputError("the reference is empty")
    parsed = parse_reference(text)
    path, found = _locate(parsed.model, revision)
    checkpoint = _open_path(path, text)
    if parsed.adapter is not None:
        from plait.checkpoint._adapter import open_adapter

        adapter, commit = _locate(parsed.adapter, None)
        checkpoint = open_adapter(checkpoint, adapter)
        found = _commits(found, commit)
    return replace(checkpoint, reference=text, revision=found or checkpoint.revision)


def _commits(base: str | None, adapter: str | None) -> str | None:
    """Both commits in one, joined like the reference; None where neither came from the hub."""
    return f"{base or ''}+{adapter or ''}" if adapter else base


def _is_file(name: str) -> bool:
    """Whether it is written as a file of weights is: no model on the hub is called like that."""
    lower = name.lower()
    return "/" not in name and (Path(lower).suffix in _SUFFIXES or lower.endswith(".index.json"))


def _locate(part: Part, revision: str | None) -> tuple[Path, str | None]:
    """Where it lies locally, fetched if need be, and the hub's commit."""
    if exists(part.name):
        return Path(part.name).expanduser(), None
    if not is_url(part.name) and (not is_hub_id(part.name) or _is_file(part.name)):
        raise InputError("no such file or folder", where=part.name, hint=_neighbour(part.name))
    from plait.checkpoint._remote import fetch

    try:
        return fetch(part.name, part.revision or revision)
    except InputError as error:
        hint = _neighbour(part.name)
        if hint is None or is_url(part.name):
            raise
        raise InputError(error.what, where=error.where, hint=hint) from error


def _neighbour(name: str) -> str | None:
    """A hint with the nearest name in the folder where the path would lie."""
    path = Path(name)
    try:
        names = [entry.name for entry in path.expanduser().parent.iterdir()]
    except (OSError, ValueError, RuntimeError):
        return f"the folder `{path.parent}` does not exist either"
    hint = nearest(path.name, names)
    return hint if hint.startswith("did you mean") else None


def _open_path(path: Path, reference: str) -> Checkpoint:
    try:
        is_folder = path.is_dir()
        os.stat(path)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    return dequantized(_open_any_folder(path, reference) if is_folder else _open_file(path, reference))


def _open_any_folder(folder: Path, reference: str) -> Checkpoint:
    if (folder / "model_index.json").is_file():
        from plait.checkpoint._diffusers import open_diffusers

        return replace(open_diffusers(folder), reference=reference)
    if (folder / "adapter_config.json").is_file() and not _has_model(folder):
        from plait.checkpoint._adapter import open_adapter_alone

        return replace(open_adapter_alone(folder), reference=reference)
    return open_folder(folder, reference)


def _has_model(folder: Path) -> bool:
    stems = ("model.safetensors", "pytorch_model.bin")
    return any((folder / f"{stem}{end}").exists() for stem in stems for end in ("", ".index.json"))


def _open_file(path: Path, reference: str) -> Checkpoint:
    if path.suffix == ".gguf":
        from plait.checkpoint._gguf import open_gguf

        return replace(open_gguf(path), reference=reference)
    if path.name.endswith(".index.json"):
        files = open_index(path.parent, path, ())
    elif path.suffix == ".safetensors" or path.suffix in TORCH_SUFFIXES:
        files = {path.name: open_weights(path)}
    else:
        kinds = ", ".join(sorted(_SUFFIXES))
        raise InputError(f"weights of this kind are not known; known: {kinds}", where=str(path))
    tensors, tied = join(files)
    fingerprint = {name: file.fingerprint for name, file in files.items()}
    return Checkpoint(reference, tensors, tied=tied, fingerprint=fingerprint)

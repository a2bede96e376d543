"""A Diffusers pipeline folder: its sub-models one by one, or all under their folders' names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from plait.checkpoint._folder import open_folder
from plait.checkpoint._json import read_json
from plait.checkpoint._sidecars import find_sidecars
from plait.checkpoint._tensor import Checkpoint, LazyTensor, ReadFlat, Shape
from plait.errors import InputError, InputErrors, raise_all

_INDEX = "model_index.json"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


def open_components(folder: Path) -> dict[str, Checkpoint]:
    """Each sub-model of a pipeline as a checkpoint of its own, by the name of its sub-folder.

    Parts without weights (scheduler, tokenizer) are left out; they travel as sidecars of the whole.

    Raises:
        InputError: a sub-model that the pipeline's index lists has no folder, or can't be opened; all
            problems at once.
    """
    problems: list[InputError] = []
    components: dict[str, Checkpoint] = {}
    for name in _listed(folder):
        path = folder / name
        if not path.is_dir():
            what = f"`{name}` is listed in {_INDEX}, and there is no such folder"
            problems.append(InputError(what, where=str(folder), hint="was the download complete?"))
        elif any(entry.name.endswith((*_WEIGHTS, ".index.json")) for entry in path.iterdir()):
            opened = _attempt(path)
            if isinstance(opened, InputError):
                problems += opened.problems if isinstance(opened, InputErrors) else [opened]
            else:
                components[name] = opened
    raise_all(problems)
    if not components:
        raise InputError("no part of this pipeline has weights that plait reads", where=str(folder))
    return components


def open_diffusers(folder: Path) -> Checkpoint:
    """All sub-models of a pipeline as one checkpoint, names prefixed by the sub-folder (`unet/…`).

    Its `config` is the pipeline's index; the sub-models' configs are sidecars.

    Raises:
        InputError: as `open_components`.
    """
    components = open_components(folder)
    tensors: dict[str, LazyTensor] = {}
    tied: dict[str, str] = {}
    fingerprint: dict[str, str] = {}
    for part, checkpoint in components.items():
        tensors.update((f"{part}/{name}", _Prefixed(part, tensor)) for name, tensor in checkpoint.items())
        tied.update((f"{part}/{alias}", f"{part}/{name}") for alias, name in checkpoint.tied.items())
        fingerprint.update((f"{part}/{file}", value) for file, value in checkpoint.fingerprint.items())
    return Checkpoint(
        reference=str(folder),
        tensors=tensors,
        config=read_json(folder / _INDEX),
        folder=folder,
        sidecars=find_sidecars(folder),
        tied=tied,
        fingerprint=fingerprint,
    )


def _listed(folder: Path) -> list[str]:
    """The components of the index that are there: `[null, null]` marks one that the pipeline does without."""
    index: Mapping[str, object] = read_json(folder / _INDEX)
    names = [
        name
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and all(isinstance(word, str) for word in value)
    ]
    bad = [name for name in names if "/" in name or "\\" in name or name in ("", ".", "..")]
    raise_all(
        [InputError(f"`{name}` is not the name of a sub-folder", where=str(folder / _INDEX)) for name in bad]
    )
    return names


def _attempt(path: Path) -> Checkpoint | InputError:
    try:
        return open_folder(path, str(path))
    except InputError as error:
        return error


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class _Prefixed(ReadFlat):
    """A component's tensor under the pipeline's name for it."""

    part: str
    source: LazyTensor

    @property
    def name(self) -> str:
        return f"{self.part}/{self.source.name}"

    @property
    def shape(self) -> Shape:
        return self.source.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.source.dtype

    @property
    def nbytes(self) -> int:
        return self.source.nbytes

    def read_flat(self, start: int, stop: int) -> Tensor:
        return self.source.read_flat(start, stop)

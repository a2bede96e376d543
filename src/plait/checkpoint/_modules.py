"""Folders whose `modules.json` lists modules in sub-folders (sentence-transformers): one model together."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from plait.checkpoint._json import load_json
from plait.checkpoint._tensor import LazyTensor
from plait.checkpoint._weights import WeightFile
from plait.errors import InputError

_LIST = "modules.json"
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")
#: What a task's head is saved as, beside its body or in a folder of the task's name.
HEAD_FILE = "head.safetensors"
_log = logging.getLogger(__name__)


def listed_modules(folder: Path) -> list[str]:
    """The sub-folders with weights that `modules.json` lists, as POSIX paths; a warning names unlisted ones.

    A sub-folder with nothing but a task's head is known to be none of the model's.

    Raises:
        InputError: the list is broken or points outside the folder.
    """
    listed: list[str] = []
    path = folder / _LIST
    for entry in _read(path) if path.is_file() else ():
        where = entry.get("path") if isinstance(entry, Mapping) else None
        if not isinstance(where, str):
            raise InputError("it is not a list of modules with paths", where=str(path))
        if "\0" in where or not (folder / where).resolve().is_relative_to(folder.resolve()):
            raise InputError(f"the module {where!r} lies outside of the folder", where=str(path))
        if where not in {"", "."} and _has_weights(folder / where):
            listed.append(Path(where).as_posix())
    inner = [p.name for p in folder.iterdir() if p.is_dir() and _has_weights(p, beside=HEAD_FILE)]
    ignored = [name for name in inner if name not in listed and not name.startswith((".", "checkpoint-"))]
    if ignored:
        _log.warning("%s: weights in the sub-folders %s are no part of the model", folder, ", ".join(ignored))
    return listed


def _read(path: Path) -> list[Any]:
    value = load_json(path)
    if not isinstance(value, list):
        raise InputError("it is not a list of modules with paths", where=str(path))
    return value


def _has_weights(folder: Path, beside: str | None = None) -> bool:
    """Whether a folder has a file of weights, beside one of that name."""
    return any(file.name != beside for pattern in _WEIGHTS for file in folder.glob(pattern))


def within(module: str, files: Mapping[str, WeightFile]) -> dict[str, WeightFile]:
    """The weight files of a sub-folder as the whole model's: every name begins with `MODULE/`."""
    found: dict[str, WeightFile] = {}
    for file, weights in files.items():
        tensors = {f"{module}/{n}": _called(f"{module}/{n}", tensor) for n, tensor in weights.tensors.items()}
        tied = {f"{module}/{alias}": f"{module}/{name}" for alias, name in weights.tied.items()}
        found[f"{module}/{file}"] = WeightFile(tensors, weights.fingerprint, tied)
    return found


def _called(name: str, tensor: LazyTensor) -> LazyTensor:
    # what a weight file holds is always a dataclass with a name
    return cast(LazyTensor, replace(cast(Any, tensor), name=name))

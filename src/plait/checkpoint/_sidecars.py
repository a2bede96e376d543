"""The files that travel with weights: configs, tokenizers, processors, licences, code."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from plait.checkpoint._files import unreadable
from plait.checkpoint._tensor import Sidecar

_SAFE_OR_TORCH = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_OTHERS = (".gguf", ".ggml", ".h5", ".msgpack", ".ot", ".onnx", ".onnx_data", ".npz", ".tflite")
_WEIGHT_SUFFIXES = frozenset((*_SAFE_OR_TORCH, *_OTHERS))
#: Written by plait itself, for every output anew.
_OWN = frozenset({"README.md", "plait.json"})
_SKIPPED_FOLDERS = re.compile(r"\.|__pycache__$|checkpoint-\d+$|.*\.mlpackage$")


def find_sidecars(folder: Path) -> tuple[Sidecar, ...]:
    """Every file below a folder that holds no weights, by relative POSIX path, sorted.

    Left out: weights of any library and their indexes, hidden files and folders, a trainer's
    `checkpoint-N` folders, and the `README.md` and `plait.json` at the top, which plait writes.

    Raises:
        InputError: a folder can't be listed.
    """

    def refuse(error: OSError) -> None:
        raise unreadable(Path(error.filename or folder), error)

    found: list[Sidecar] = []
    for root, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not _SKIPPED_FOLDERS.match(name))
        for name in files:
            path = Path(root, name)
            relative = path.relative_to(folder).as_posix()
            if not _left_out(relative) and path.is_file():
                found.append(Sidecar(relative, path))
    return tuple(sorted(found, key=lambda sidecar: sidecar.name))


def _left_out(relative: str) -> bool:
    path = PurePosixPath(relative)
    weights = path.suffix.lower() in _WEIGHT_SUFFIXES or path.suffix.startswith(".onnx_data")
    index = path.name.endswith(".index.json") and PurePosixPath(path.name[:-11]).suffix in _WEIGHT_SUFFIXES
    return relative in _OWN or path.name.startswith(".") or weights or index

"""One weight file of any kind: its tensors, what is tied in it, and its fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from plait.checkpoint._fingerprint import file_fingerprint
from plait.checkpoint._safetensors import open_safetensors
from plait.checkpoint._tensor import LazyTensor

#: Suffixes of files that torch.save writes.
TORCH_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt"})


@dataclass(frozen=True)
class WeightFile:
    """One opened weight file.

    Attributes:
        tensors: name → lazy tensor, in the file's order.
        fingerprint: `size-mtime_ns-headerhash`.
        tied: alias → name of the stored tensor.
    """

    tensors: Mapping[str, LazyTensor]
    fingerprint: str
    tied: Mapping[str, str] = field(default_factory=dict)


def open_weights(path: Path) -> WeightFile:
    """Open one safetensors or PyTorch file, by its suffix.

    Raises:
        InputError: it is missing, corrupt, or a pickle that wants more than tensors.
    """
    if path.suffix in TORCH_SUFFIXES:
        from plait.checkpoint._pickle import open_torch

        return open_torch(path)
    file = open_safetensors(path)
    # safetensors.torch.save_model notes there which names it left out because they are shared
    tied = {k: v for k, v in file.metadata.items() if v in file.tensors and k not in file.tensors}
    return WeightFile(file.tensors, file_fingerprint(file.file, file.header), tied)

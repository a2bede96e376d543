"""Networks in folders: a body as a checkpoint that everything in plait opens, and heads beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from safetensors.torch import save_model
from torch import nn

from plait.checkpoint import HEAD_FILE
from plait.tasks._joint import Heads
from plait.tasks._task import Headed


def save_network(network: nn.Module, folder: Path) -> None:
    """Write a network: transformers' models as transformers does, others as safetensors.

    Args:
        network: a body, or one with a task's head, which lies beside it then; those of a mixture each in a
            folder of its task's name.
        folder: made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    body: Any = network.body if isinstance(network, Headed) else network
    for place, head in _heads(network, folder):
        place.mkdir(exist_ok=True)
        save_model(head, str(place / HEAD_FILE))
    if hasattr(body, "save_pretrained"):
        body.save_pretrained(folder)
    else:
        save_model(body, str(folder / "model.safetensors"))


def _heads(network: nn.Module, folder: Path) -> list[tuple[Path, nn.Module]]:
    """Where heads are written."""
    if not isinstance(network, Headed):
        return []
    if isinstance(network.head, Heads):
        return [(folder / folder_name(task), head) for task, head in network.head.named()]
    return [(folder, network.head)]


def folder_name(name: str) -> str:
    """A name as that of a folder; "." and ".." are the only ones that quoting leaves as ways out."""
    own = quote(name, safe=" ")
    return own.replace(".", "%2E") if own in (".", "..") else own


def head_folders(folder: Path, task: str) -> list[Path]:
    """Where a task's head may be in a folder of several: under its name as it is saved, or as it is."""
    plain = Path(task).name == task
    return list(dict.fromkeys([folder / folder_name(task), *([folder / task] if plain else [])]))

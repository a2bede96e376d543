"""Networks in folders: a body as a checkpoint that everything in plait opens, and heads beside it."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import quote

from torch import nn

from plait.checkpoint import HEAD_FILE, disk_errors, save_module
from plait.tasks._joint import Heads
from plait.tasks._task import Headed

#: Bytes of a name that every system takes, with room for what is put behind it.
_LONGEST = 200
#: How files of saved networks and adapters end.
_FILES = (".safetensors", ".json")


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
        save_module(head, place / HEAD_FILE)
    if hasattr(body, "save_pretrained"):
        with disk_errors(folder):
            body.save_pretrained(folder)
    else:
        save_module(body, folder / "model.safetensors")


def _heads(network: nn.Module, folder: Path) -> list[tuple[Path, nn.Module]]:
    """Where heads are written."""
    if not isinstance(network, Headed):
        return []
    if isinstance(network.head, Heads):
        return [(folder / folder_name(task), head) for task, head in network.head.named()]
    return [(folder, network.head)]


def file_name(name: str) -> str:
    """A name as the beginning of a file's: quoted, and cut, with a digest, where it would be too long."""
    own = quote(
        name, safe=" ", errors="surrogatepass"
    )  # half a character, as old files have it, is a name too
    if len(own) <= _LONGEST:
        return own
    digest = blake2b(name.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return f"{own[: _LONGEST - len(digest) - 1]}={digest}"  # no quoted name has this character


def folder_name(name: str) -> str:
    """A name as that of a folder: neither a way out of one, nor what a saved network has for a file."""
    own = file_name(name)
    return own.replace(".", "%2E") if own in (".", "..") or own.endswith(_FILES) else own


def head_folders(folder: Path, task: str) -> list[Path]:
    """Where a task's head may be in a folder of several: under its name as it is saved, or as it is."""
    try:
        plain = Path(task).name == task and len(os.fsencode(task)) <= _LONGEST
    except UnicodeEncodeError:  # half a character, which no system has in a file's name
        plain = False
    return list(dict.fromkeys([folder / folder_name(task), *([folder / task] if plain else [])]))

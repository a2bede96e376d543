"""A fleet's members as folders: what transformers saves, or a safetensors file, and the head beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from plait.errors import InputError
from plait.fleet._member import described
from plait.fleet._save_adapter import save_adapter
from plait.tasks import Heads, folder_name, save_network

if TYPE_CHECKING:
    from plait.fleet._fleet import Fleet


def export(fleet: Fleet, folder: Path, base: str | None) -> list[Path]:
    """Write every member's network, or its adapter as PEFT writes it, into a folder of its own.

    Returns:
        the folders, in the fleet's order.

    Raises:
        InputError: the folder is there and not empty, or can't be written.
    """
    try:
        if folder.exists() and any(folder.iterdir()):
            raise InputError("the folder is not empty", where=str(folder), hint="give another one")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"it could not be written: {error}", where=str(folder)) from error
    made: list[Path] = []
    try:
        for name in fleet._roster.trainees:
            made.append(folder / folder_name(name))
            _member(fleet, name, made[-1], base)
    except (OSError, SafetensorError, InputError) as error:
        for place in made:  # no half of a fleet stays
            shutil.rmtree(place, ignore_errors=True)
        if isinstance(error, InputError):
            raise
        raise InputError(f"it could not be written: {error}", where=str(folder)) from error
    return made


def _member(fleet: Fleet, name: str, place: Path, base: str | None) -> None:
    """A member's network or adapter, and what it is, in a folder."""
    place.mkdir()
    trainee = fleet._roster.trainees[name]
    if trainee.member.lora is not None:
        own = trainee.task.head
        heads = own.names if isinstance(own, Heads) else ()
        save_adapter(fleet.state(name), trainee.adapter, place, base, heads=heads)
    else:
        save_network(fleet[name], place)
    about: dict[str, Any] = {"member": described(trainee.member), "task": trainee.task.name}
    about |= {"steps": trainee.step, "status": trainee.status, "best": trainee.best}
    text = json.dumps(about, indent=1, default=str)
    (place / "member.json").write_text(text + "\n", encoding="utf-8")

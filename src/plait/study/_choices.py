"""Ways of training that `auto` chose, kept from one folder of a study to the next.

`auto` goes by the clock, and a stack rounds otherwise than the loop: chosen anew, the same study in another
folder would differ in its last digits.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3

from plait.fleet import Choice, Fleet
from plait.numerics import user_cache
from plait.study._steps import within_step
from plait.study._whole import as_number, write_json


def recall(fleet: Fleet, folder: Path) -> None:
    """Give a fleet what was chosen when the same training ran last, with this PyTorch and as many threads."""
    with contextlib.suppress(OSError, ValueError, RecursionError, OverflowError):  # it is measured then
        kept = json.loads(_file(folder).read_text(encoding="utf-8"))
        if not isinstance(kept, dict):
            raise ValueError("it maps no members")
        found = {name: _choice(told, len(fleet)) for name, told in kept.items()}
        fleet.choices |= {name: choice for name, choice in found.items() if name in fleet}


def _choice(told: Any, members: int) -> Choice:
    """A choice as `remember` told it; a way that can't be gone takes for ever.

    Raises:
        ValueError: it is none for so many members: the file is damaged, or another program's.
    """
    match told:
        case {"kind": "sequential" | "stacked" as kind, "size": int(size), "seconds": dict(seconds)}:
            if not 1 <= size <= members or isinstance(size, bool):
                raise ValueError(f"groups of {size} of {members} members")
            if not all(isinstance(each, float | int | str | None) for each in seconds.values()):
                raise ValueError("its seconds are no numbers")
            return Choice(kind, size, {way: as_number(each) for way, each in seconds.items()})
        case _:
            raise ValueError("it is no choice")


def remember(fleet: Fleet, folder: Path) -> None:
    """Keep what a fleet chose, if the user's cache can be written."""
    with contextlib.suppress(OSError):
        file = _file(folder)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json({name: asdict(choice) for name, choice in fleet.choices.items()}, file)


def _file(folder: Path) -> Path:
    """Where the choices of a training are: by its step and place in it, and by what speeds depend on."""
    facts = [within_step(folder), str(torch.__version__), torch.get_num_threads(), os.cpu_count()]
    return user_cache() / "choices" / f"{blake3(json.dumps(facts).encode()).hexdigest()[:24]}.json"

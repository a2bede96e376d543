"""Saves: whole or not at all.

A save is a folder `saves/000000120` with one safetensors file per member and `fleet.json`; it is written
beside its place and renamed, then older ones go. Files of members that have not moved are linked, not copied.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from plait.errors import InputError
from plait.fleet._facts import Facts, read, written
from plait.fleet._signals import undisturbed
from plait.fleet._trainee import State
from plait.tasks import file_name

_SAVES = "saves"
_FACTS = "fleet.json"


#: What a save is renamed to while another of the same round takes its place.
_ASIDE = ".old"
_SAVE = re.compile(rf"\d+({re.escape(_ASIDE)})?")
#: Saves and what was left of one that was not finished; whatever else lies there is somebody's.
_OURS = re.compile(rf"{_SAVE.pattern}|\.\d+\.(?P<process>\d+)")
#: No optimizer keeps more.
_MOMENTS = 2


class Store:
    """Where a fleet keeps what it needs to go on.

    Args:
        folder: of the fleet.
        own: digests of what its own saves say: the last one, and those begun since, which may be whole.
    """

    def __init__(self, folder: Path, own: set[str] | None = None) -> None:
        self.folder = folder
        self.saves = folder / _SAVES
        self.own = set[str]() if own is None else own

    def newest(self) -> Path | None:
        """The last whole save.

        Raises:
            InputError: the folder can't be read.
        """
        try:
            found = list(self.saves.iterdir()) if self.saves.is_dir() else []
        except OSError as error:
            raise InputError(f"it can't be read: {error.strerror}", where=str(self.saves)) from error
        whole = [p for p in found if _SAVE.fullmatch(p.name) and (p / _FACTS).is_file()]
        # of two of one round, the one that was not moved aside
        return max(whole, key=lambda p: (number_of(p), p.suffix != _ASIDE), default=None)

    def is_own(self, place: Path) -> bool:
        """Whether the fleet wrote a save, or has taken it up."""
        with contextlib.suppress(OSError):
            return _digest((place / _FACTS).read_bytes()) in self.own
        return False

    def take(self, place: Path) -> None:
        """A save is the fleet's own from now on: it goes on from there."""
        self.own.add(_digest((place / _FACTS).read_bytes()))

    def write(self, number: int, states: Mapping[str, State | None], facts: Facts) -> Path:
        """Save; a member whose state is None has its file from the last save.

        Raises:
            InputError: there is no space; the last whole save stays.
        """
        before, text = self.newest(), written(facts).encode()
        self.own.add(_digest(text))
        place = self.saves / f"{number:09d}"
        beside = self.saves / f".{number:09d}.{os.getpid()}"
        shutil.rmtree(beside, ignore_errors=True)
        try:
            beside.mkdir(parents=True)
            for name, state in states.items():
                path = beside / _file(name)
                if state is None and before is not None:
                    _link(before / path.name, path)
                elif state is not None:
                    save_file(_flat(state), path, _counts(state))
                    _flush(path)
            (beside / _FACTS).write_bytes(text)
            _flush(beside / _FACTS)
            aside = place.with_name(place.name + _ASIDE)
            if place.exists():
                shutil.rmtree(aside, ignore_errors=True)
                place.rename(aside)
            beside.rename(place)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(beside, ignore_errors=True)
            stays = f"the save of round {number_of(before)} stays" if before else "nothing is saved yet"
            hint = f"{stays}; make room, then go on with resume=True"
            raise InputError(
                f"a save could not be written: {error}", where=str(self.folder), hint=hint
            ) from error
        self.own.intersection_update([_digest(text)])
        for old in self.saves.iterdir():
            ours = _OURS.fullmatch(old.name)
            if old != place and ours is not None and not _writing(ours["process"]):
                shutil.rmtree(old, ignore_errors=True)
        return place

    def facts(self, place: Path) -> Facts:
        """What a save says of its fleet.

        Raises:
            InputError: it can't be read, or is no fleet's.
        """
        return read(place / _FACTS)

    def state(self, place: Path, name: str, like: State) -> State:
        """A member's state.

        Args:
            place: the save.
            name: of the member.
            like: a state of it: the file must hold tensors of these names, shapes and types.

        Raises:
            InputError: its file is missing or damaged, or another's.
        """
        path = place / _file(name)
        state = State({}, {})
        try:
            # safetensors takes Ctrl-C for an error of the file
            with undisturbed(), safe_open(path, "pt") as file:
                counts = file.metadata() or {}
                state.step, state.missed = int(counts["step"]), json.loads(counts.get("missed", "{}"))
                for key in file.keys():  # noqa: SIM118
                    kind, tensor_name = key.split(":", 1)
                    _part(state, kind)[tensor_name] = file.get_tensor(key)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise InputError(f"it can't be read: {error}", where=str(path)) from error
        if (why := _difference(state, like)) is not None:
            hint = "the file was changed or is another member's; start in another folder"
            raise InputError(f"it is not this member's: {why}", where=str(path), hint=hint)
        return state


def best_of(name: str) -> str:
    """What the weights of a member's best validation are saved as: no member's name has this character."""
    return f"\0{name}"


def number_of(save: Path) -> int:
    """The round of a save."""
    return int(save.name.partition(".")[0])


def _digest(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def _file(name: str) -> str:
    """A member's file: names may hold what a file's name can't, and `=` is in none of these."""
    best = "=best" if name.startswith("\0") else ""
    return file_name(name.removeprefix("\0")) + best + ".safetensors"


def _flat(state: State) -> dict[str, torch.Tensor]:
    parts = {"parameter": state.parameters, "buffer": state.buffers}
    parts |= {f"moment{index}": moment for index, moment in enumerate(state.moments)}
    return {
        f"{kind}:{name}": t.contiguous().cpu() for kind, part in parts.items() for name, t in part.items()
    }


def _counts(state: State) -> dict[str, str]:
    missed = {"missed": json.dumps(state.missed)} if state.missed else {}
    return {"step": str(state.step), **missed}


def _part(state: State, kind: str) -> dict[str, torch.Tensor]:
    if kind == "parameter":
        return state.parameters
    if kind == "buffer":
        return state.buffers
    index = int(kind.removeprefix("moment"))
    if index >= _MOMENTS:
        raise ValueError(f"`{kind}`")
    while len(state.moments) <= index:
        state.moments.append({})
    return state.moments[index]


def _difference(state: State, like: State) -> str | None:
    """The first tensor of a state that another has not, or has otherwise; moments are like parameters.

    Buffers may have come, or changed their shapes, as a network was trained.
    """
    for own, wanted in ((state.parameters, like.parameters), (state.buffers, like.buffers)):
        if lost := sorted(wanted.keys() - own.keys()):
            return f"it has no `{lost[0]}`"
    for own in (state.parameters, *state.moments):
        for name, tensor in own.items():
            if name not in like.parameters:
                return f"`{name}` is none of its tensors"
            wanted = like.parameters[name]
            if (tensor.shape, tensor.dtype) != (wanted.shape, wanted.dtype):
                return f"`{name}` is {tuple(tensor.shape)} in {tensor.dtype}"
    return None


def _writing(process: str | None) -> bool:
    """Whether what was left of a save may be another living process's: locks don't hold everywhere."""
    if process is None or int(process) == os.getpid() or os.name == "nt":  # there, asking ends a process
        return False
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _link(old: Path, new: Path) -> None:
    try:
        os.link(old, new)
    except OSError:
        shutil.copy2(old, new)


def _flush(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("rb") as file:
        os.fsync(file.fileno())

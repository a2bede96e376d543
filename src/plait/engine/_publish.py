"""Putting a finished folder in a target's place, so that a kill never leaves neither the old nor the new one.

Where the system can exchange two folders in one step (Linux, macOS), it does, and the target is there at
every moment. Elsewhere the old folder is renamed into the work folder first, as `old`; a run that is killed
right then leaves it there, and the next run into the target puts it back before anything else (`restore`).
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from plait.engine._lock import locked, work_folder
from plait.errors import InputError

_HERE = -100  # AT_FDCWD
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS


def publish(finished: Path, out: Path, *, replace: bool) -> None:
    """Put a finished folder in place.

    Args:
        finished: the folder, in the work folder.
        out: the target: absent or an empty folder, or any folder with `replace`.
        replace: the target may hold something, which is then in the work folder.

    Raises:
        InputError: it can't be done; the target is as it was.
    """
    try:
        if replace and out.exists():
            _flush(finished)
            if not exchange(finished, out):
                _swap(finished, out, finished.parent / "old")
            _sync(out.parent)
            return
        if out.exists():
            out.rmdir()
        finished.rename(out)
    except OSError as error:
        raise InputError(
            f"the result can't be put in place: {error.strerror or error}",
            where=str(out),
            hint="it is complete: make room for it and run again with --resume",
        ) from error


def restore(out: Path) -> None:
    """Put back a target that a killed run had taken away and not replaced yet.

    Raises:
        InputError: another run holds the target.
    """
    old = work_folder(out) / "old"
    if not old.exists() or out.exists():
        return
    with locked(out) as held:
        held.keep = True
        if old.exists() and not out.exists():
            old.rename(out)


def _swap(finished: Path, out: Path, old: Path) -> None:
    """Two renames; what interrupts them in this process is undone here, a kill by `restore`."""
    out.rename(old)
    try:
        finished.rename(out)
    except BaseException:
        if not out.exists():
            old.rename(out)
        raise


def exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step; False where the system or the file system can't."""
    names = os.fsencode(one), os.fsencode(other)
    try:
        library = ctypes.CDLL(None)
        if sys.platform == "darwin":
            return library.renamex_np(*names, _EXCHANGE) == 0
        return library.renameat2(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0
    except (AttributeError, OSError, TypeError):  # no such function, or no such library
        return False


def _flush(folder: Path) -> None:
    """Force a folder and all that is in it to the disk, as what it replaces will be gone."""
    for place, _, files in os.walk(folder, topdown=False):
        for name in files:
            _sync(Path(place, name))
        _sync(Path(place))


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # folders can't be opened there
        return
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""The lock on a folder: one run at a time; the system drops it when its process dies."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plait.errors import InputError

#: Bytes of a file name that every system takes, with room for what is put around it.
_LONGEST_NAME = 200
_TRIES = 100
#: What the system says where another process holds the lock.
_HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)


def work_folder(out: Path) -> Path:
    """Where a run into `out` works: beside it, so that renaming one to the other moves no data."""
    name = os.fsencode(out.name)
    short = out.name if len(name) <= _LONGEST_NAME else hashlib.blake2b(name, digest_size=16).hexdigest()
    return out.parent / f".{short}.plait"


@dataclass
class Held:
    """A locked work folder.

    Attributes:
        folder: where it is.
        keep: it stays when the lock is given back.
    """

    folder: Path
    keep: bool = False


@contextlib.contextmanager
def locked(out: Path) -> Iterator[Held]:
    """Hold the lock of `out`'s work folder; at the end the folder is removed unless it is to be kept.

    Raises:
        InputError: another run holds it, or the folder can't be made.
    """
    held = Held(work_folder(out))
    made = [parent for parent in held.folder.parents if not parent.exists()]
    handle = _acquire(held.folder)
    try:
        yield held
    finally:
        if not held.keep:
            shutil.rmtree(held.folder, ignore_errors=True)
        os.close(handle)
        if not held.keep:
            _remove_rest(held.folder, made)


def _remove_rest(folder: Path, made: list[Path]) -> None:
    with contextlib.suppress(OSError):
        if os.name == "nt":  # no open file can be removed there
            (folder / "lock").unlink()
            folder.rmdir()
        for parent in made:
            parent.rmdir()


def _acquire(folder: Path) -> int:
    try:
        handle = hold(folder / "lock")
    except OSError as error:
        raise InputError(f"can't write here: {error.strerror}", where=str(folder.parent)) from error
    if handle is None:
        raise InputError(
            "another run is writing there right now",
            where=str(folder),
            hint="wait for it, or choose another output",
        )
    return handle


def hold(path: Path) -> int | None:
    """Lock a file, which is made with its folders if need be.

    Args:
        path: of the file; nothing is written into it.

    Returns:
        the handle that holds the lock until it is closed; None if another has it.

    Raises:
        OSError: the file can't be made.
    """
    gone = None
    for _ in range(_TRIES):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError as error:
            gone = error  # another run is just removing the folder, or nothing can be made there
            continue
        free = _try_lock(handle)
        if free and _is(path, handle):
            return handle
        os.close(handle)
        if not free:
            return None
        # The file was removed between opening and locking it.
    if gone is not None:
        raise gone
    return None


def _is(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except OSError:
        return False


def _try_lock(handle: int) -> bool:
    try:
        import fcntl
    except ImportError:
        import msvcrt  # Windows has no fcntl

        locking: Any = msvcrt
        try:
            locking.locking(handle, locking.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # A file system without locks (some of clusters) tells nothing about other runs.
        return error.errno not in _HELD
    return True

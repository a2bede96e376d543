"""The lock on a fleet's folder: one fit at a time; the system drops it when its process dies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from plait.errors import InputError

_NAME = ".lock"


@contextlib.contextmanager
def locked(folder: Path | None) -> Iterator[None]:
    """Hold the lock of a folder, which is made if need be; nothing for None.

    Raises:
        InputError: another fit holds it, or the folder can't be made.
    """
    if folder is None:
        yield
        return
    from filelock import FileLock, Timeout

    lock = FileLock(folder / _NAME)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        hint = "wait for it, or give another folder: out="
        raise InputError("another fleet is training there right now", where=str(folder), hint=hint) from error
    except NotImplementedError:
        pass  # a file system without locks (some of clusters) tells nothing about other runs
    except (OSError, ValueError) as error:
        hint = "make room or give another folder"
        raise InputError(f"it could not be written: {error}", where=str(folder), hint=hint) from error
    try:
        yield
    finally:
        lock.release()

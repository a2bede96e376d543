"""The lock on a fleet's folder: one fit at a time; the system drops it when its process dies."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from plait.engine._lock import hold
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
    try:
        handle = hold(folder / _NAME)
    except (OSError, ValueError) as error:
        hint = "make room or give another folder"
        raise InputError(f"it could not be written: {error}", where=str(folder), hint=hint) from error
    if handle is None:
        hint = "wait for it, or give another folder: out="
        raise InputError("another fleet is training there right now", where=str(folder), hint=hint)
    try:
        yield
    finally:
        os.close(handle)

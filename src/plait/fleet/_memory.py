"""Memory of large tensors, which come and go at each step, is kept for the next ones.

glibc asks the kernel for each block beyond 32 MB and gives it back when it is freed. The next step then gets
it page by page anew, a fault for every 4 KB: half of the time of a step of 64 small CNNs.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

#: `mallopt`'s numbers (malloc.h), and the largest value that it takes.
_TRIM, _MMAP, _MOST = -1, -3, 2**31 - 1
#: Where glibc's own adaptation of both ends: what holds afterwards.
_USUAL = {_MMAP: 32 << 20, _TRIM: 64 << 20}
#: Settings that, once in the environment, are the user's.
_SETTINGS = "mmap_threshold", "mmap_max", "trim_threshold"


@dataclass
class _Users:
    """How many want memory to be kept now."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    count: int = 0


_users = _Users()


def _forget() -> None:
    """A process that was forked trains nothing yet, whatever its parent was at."""
    _users.lock, _users.count = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextlib.contextmanager
def memory_kept() -> Iterator[None]:
    """Let the allocator keep what is freed, for the whole process; it is given back at the end.

    Nothing changes where the C library isn't glibc, or where its settings come from the environment.
    """
    library = _glibc()
    if library is None:
        yield
        return
    with _users.lock:
        _users.count += 1
        for option in _USUAL:
            library.mallopt(option, _MOST)
    try:
        yield
    finally:
        with _users.lock:
            _users.count -= 1
            if not _users.count:
                for option, value in _USUAL.items():
                    library.mallopt(option, value)
                library.malloc_trim(0)


def _glibc() -> Any:
    """The C library, if its allocator is glibc's and nobody has set it up."""
    tuned = os.environ.get("GLIBC_TUNABLES", "")
    chosen = any(f"MALLOC_{name.upper()}_" in os.environ or f"malloc.{name}" in tuned for name in _SETTINGS)
    if chosen or sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    named = ("gnu_get_libc_version", "mallopt", "malloc_trim")
    return library if all(hasattr(library, name) for name in named) else None

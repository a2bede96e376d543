"""Reading bytes at offsets from many files with few descriptors.

No mmap: a file that shrinks while it is mapped kills the interpreter, here it is an error.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from plait.errors import InputError

#: One system call reads at most this much: macOS refuses 2 GiB and more, Linux returns short.
_LARGEST_READ = 1 << 30
_OPEN_FILES = 64


@dataclass(frozen=True)
class SourceFile:
    """A regular file as it was when it was opened first.

    Attributes:
        path: where it lies.
        size: bytes.
        mtime_ns: time of its last change, in nanoseconds.
        inode: tells two files apart that had the same path one after the other.
    """

    path: Path
    size: int
    mtime_ns: int
    inode: int

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill `view` (bytes) with the file's bytes from `offset` on. Thread-safe.

        Raises:
            InputError: the file is gone, was replaced, shrank, or can't be read.
        """
        handle = _pool.borrow(self)
        try:
            done, total = 0, len(view)
            while done < total:
                try:
                    count = handle.read_at(view[done : done + _LARGEST_READ], offset + done)
                except OSError as error:
                    raise unreadable(self.path, error) from error
                if count == 0:
                    raise InputError(
                        f"the file shrank while being read: it had {self.size} bytes, "
                        f"and reading at byte {offset + done} finds its end",
                        where=str(self.path),
                    )
                done += count
        finally:
            _pool.give_back(handle)

    def read(self, offset: int, count: int) -> bytes:
        """The `count` bytes from `offset` on."""
        buffer = bytearray(count)
        self.read_into(memoryview(buffer), offset)
        return bytes(buffer)


def source_file(path: Path) -> SourceFile:
    """Look at a file without reading it.

    Raises:
        InputError: it does not exist, is not a regular file, or may not be looked at.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(found.st_mode):
        raise InputError("this is not a regular file", where=str(path))
    return SourceFile(path, found.st_size, found.st_mtime_ns, found.st_ino)


def unreadable(path: Path, error: Exception) -> InputError:
    """The message for a file that the system refuses."""
    if isinstance(error, FileNotFoundError):
        broken = path.is_symlink()
        return InputError("this link leads nowhere" if broken else "no such file", where=str(path))
    if isinstance(error, PermissionError):
        return InputError("reading it is not permitted", where=str(path))
    reason = getattr(error, "strerror", None) or str(error)
    return InputError(f"it can't be read: {reason}", where=str(path))


@dataclass
class _Handle:
    descriptor: int
    users: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read_at(self, view: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self.descriptor, [view], offset)
        if hasattr(os, "pread"):
            data = os.pread(self.descriptor, len(view), offset)
        else:  # Windows: the position belongs to the descriptor, so one reader at a time
            with self.lock:
                os.lseek(self.descriptor, offset, os.SEEK_SET)
                data = os.read(self.descriptor, len(view))
        view[: len(data)] = data
        return len(data)


class _DescriptorPool:
    """About `limit` open files: the least recently used is closed first, one in use never."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._handles: OrderedDict[SourceFile, _Handle] = OrderedDict()

    def borrow(self, source: SourceFile) -> _Handle:
        """An open descriptor, to be given back."""
        with self._lock:
            handle = self._handles.get(source)
            if handle is None:
                handle = self._handles[source] = _Handle(_open(source))
            self._handles.move_to_end(source)
            handle.users += 1
        return handle

    def give_back(self, handle: _Handle) -> None:
        """A descriptor is no longer in use."""
        with self._lock:
            handle.users -= 1
            self._trim(self._limit)

    def _trim(self, limit: int) -> None:
        excess = len(self._handles) - limit
        if excess <= 0:
            return
        idle = [source for source, handle in self._handles.items() if handle.users == 0]
        for source in idle[:excess]:
            os.close(self._handles.pop(source).descriptor)

    def close_idle(self) -> None:
        with self._lock:
            self._trim(0)


def _open(source: SourceFile) -> int:
    try:
        descriptor = os.open(source.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise unreadable(source.path, error) from error
    found = os.fstat(descriptor)
    if (found.st_size, found.st_mtime_ns) != (source.size, source.mtime_ns):
        os.close(descriptor)
        raise InputError("the file was changed while being read", where=str(source.path))
    return descriptor


_pool = _DescriptorPool(_OPEN_FILES)


def close_idle_files() -> None:
    """Close every descriptor that nobody reads from; Windows renames no file that is open."""
    _pool.close_idle()

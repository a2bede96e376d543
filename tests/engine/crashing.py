"""Processes that kill themselves at their n-th operation on files."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from plait.engine import _work

_OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.scandir")
_OTHERS = ("shutil.copyfile", "ctypes.dlsym")


class _Countdown:
    """Kills this process at its n-th point.

    Args:
        points: which one.
        root: only files below it count.
    """

    def __init__(self, points: int, root: Path) -> None:
        self.left, self.root = points, str(root)

    def point(self) -> None:
        self.left -= 1
        if self.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(self, event: str, arguments: tuple[object, ...]) -> None:
        ours = any(self.root in str(argument) or isinstance(argument, int) for argument in arguments)
        if event in _OTHERS or (event in _OPERATIONS and ours):
            self.point()

    def install(self) -> None:
        sys.addaudithook(self.hook)
        pwrite, countdown = os.pwrite, self

        def torn_write(handle: int, data: memoryview, offset: int) -> int:
            countdown.point()
            half = pwrite(handle, data[: len(data) // 2], offset)
            countdown.point()
            return half + pwrite(handle, data[half:], offset + half)

        class TornJournal:
            """A file whose lines are written in two parts."""

            def __init__(self, file: object) -> None:
                self._file = file

            def write(self, line: memoryview) -> int:
                half = self._file.write(line[: len(line) // 2])
                countdown.point()
                return half + self._file.write(line[half:])

            def close(self) -> None:
                self._file.close()

        begin = _work.Work.begin

        def torn_begin(work: _work.Work, *words: object, **named: object) -> None:
            begin(work, *words, **named)
            work._journal = TornJournal(work._journal)

        os.pwrite, _work.Work.begin = torn_write, torn_begin


def dies_at(points: int, root: Path, work: Callable[[], object]) -> bool:
    """Run `work` in a process of its own that dies at that point; False if it came to its end before."""
    child = os.fork()
    if child == 0:
        try:
            _Countdown(points, root).install()
            work()
            os._exit(0)
        finally:
            os._exit(1)
    deadline = time.monotonic() + 60
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError(f"point {points}")
        time.sleep(0.001)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), f"point {points}: {code}"
    return code != 0

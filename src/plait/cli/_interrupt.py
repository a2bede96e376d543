"""Ctrl-C and SIGTERM end a command within a second, whatever it is doing.

The main thread gets an exception, so that it stops its workers and cleans up. What can't be left in time (a
compiler, one long call of a library) is cut off: a thread of its own ends the process half a second later.
Nothing is lost by that, as a merge that is killed at any moment can be resumed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

#: Seconds that cleaning up may take.
_PATIENCE = 0.6


class Interrupted(BaseException):
    """A signal asked for the end. (typer would swallow a `KeyboardInterrupt`.)

    Args:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextlib.contextmanager
def prompt_end(say: Callable[[], None]) -> Iterator[None]:
    """Turn signals into `Interrupted`, and end the process if that does not end it soon.

    Args:
        say: says that the command was interrupted; called where the main thread had no time to.
    """
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    reader, writer = os.pipe()
    if hasattr(os, "set_blocking"):
        os.set_blocking(writer, False)
    over = threading.Event()
    _came.clear()
    threading.Thread(target=_watch, args=(reader, over, say), daemon=True).start()
    before = {number: signal.signal(number, _raise) for number in numbers}
    woken = signal.set_wakeup_fd(writer, warn_on_full_buffer=False) if numbers else -1
    try:
        yield
        over.set()
    except Interrupted:
        raise  # the watch goes on: threads that still run would hold up the interpreter's end
    except BaseException:
        over.set()
        raise
    finally:
        if numbers:
            signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writer)


#: Signals that came, as a library may turn `Interrupted` into an error of its own (pydantic does).
_came: list[int] = []


def _raise(number: int, frame: FrameType | None) -> None:
    _came.append(number)
    raise Interrupted(number)


def check_interrupt() -> None:
    """Raise `Interrupted` if a signal has come."""
    if _came:
        raise Interrupted(_came[-1])


def _watch(reader: int, over: threading.Event, say: Callable[[], None]) -> None:
    # Python writes the number of each signal there, even while the main thread can't handle it.
    number = os.read(reader, 1)
    os.close(reader)
    if not number or over.wait(_PATIENCE):
        return
    if sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h")  # a progress bar hides the cursor
    say()
    sys.stderr.flush()
    os._exit(128 + number[0])

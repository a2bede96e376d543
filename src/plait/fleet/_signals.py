"""Signals wait while weights change: what their handlers raise, Ctrl-C above all, cuts no step in two.

Python calls the handlers of signals between any two instructions of the main thread. While a fleet trains,
those that are there when it begins are called through plait, which puts them off where something must be done
whole: the pass of a micro-batch, the change of weights and its count, and each entry in a fleet's books.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import torch

Handler = Callable[[int, FrameType | None], Any]


class _Signals:
    """The main thread's handlers, and calls of them that wait."""

    def __init__(self) -> None:
        self.handlers: dict[int, Handler] = {}
        #: How many have asked that signals wait.
        self.holds = 0
        #: Whether `hold` may ask, until weights that change are counted.
        self.counting = False
        self.waiting: list[tuple[Handler, int, FrameType | None]] = []
        #: How often a handler has raised.
        self.cuts = 0

    def take(self, number: int, frame: FrameType | None) -> None:
        """Call a signal's handler, or put it off."""
        if self.holds:
            self.waiting.append((self.handlers[number], number, frame))
        else:
            self._call(self.handlers[number], number, frame)

    def let_go(self) -> None:
        """Call those that wait, every one whatever another raises."""
        waiting, self.waiting = self.waiting, []
        with ExitStack() as stack:
            for each in reversed(waiting):
                stack.callback(self._call, *each)

    def _call(self, handler: Handler, number: int, frame: FrameType | None) -> None:
        try:
            handler(number, frame)
        except BaseException:
            self.cuts += 1
            raise


_SIGNALS = _Signals()


@contextmanager
def through_plait() -> Iterator[None]:
    """Inside, handlers of signals can be put off; nothing in other threads, where they are never called.

    Whether PyTorch notes gradients is as before in the end: what is cut off as a `no_grad` begins or ends
    leaves them off.
    """
    if not _is_main() or _SIGNALS.handlers:
        yield
        return
    found = {number: signal.getsignal(number) for number in signal.valid_signals()}
    own, notes = _SIGNALS.take, torch.is_grad_enabled()
    _SIGNALS.handlers = {number: handler for number, handler in found.items() if callable(handler)}
    try:
        for number in _SIGNALS.handlers:
            signal.signal(number, own)
        yield
    finally:
        for number, handler in _SIGNALS.handlers.items():
            if signal.getsignal(number) == own:  # else the user has set another meanwhile
                signal.signal(number, handler)
        _SIGNALS.handlers = {}
        torch.set_grad_enabled(notes)


class undisturbed:  # noqa: N801
    """`with undisturbed():` what is done inside is done whole; signals' handlers are called after it."""

    __slots__ = ("_holds",)

    def __enter__(self) -> None:
        self._holds = _is_main()
        _SIGNALS.holds += self._holds

    def __exit__(self, *_: object) -> None:
        _SIGNALS.holds -= self._holds
        if self._holds and _SIGNALS.waiting and not _SIGNALS.holds:
            _SIGNALS.let_go()


@contextmanager
def until_counted() -> Iterator[None]:
    """Inside, signals wait once `hold` has said that weights are about to change."""
    if not _is_main():
        yield
        return
    before, _SIGNALS.counting = _SIGNALS.holds, True
    try:
        yield
    finally:
        _SIGNALS.counting, _SIGNALS.holds = False, before
        if _SIGNALS.waiting and not before:
            _SIGNALS.let_go()


def hold() -> None:
    """Weights are about to change: signals wait until that is counted (`until_counted`)."""
    if _SIGNALS.counting and _is_main():
        _SIGNALS.counting = False
        _SIGNALS.holds += 1


def cuts() -> int:
    """How often a signal's handler has raised while a fleet trained."""
    return _SIGNALS.cuts


def _is_main() -> bool:
    return threading.get_ident() == threading.main_thread().ident

"""Which backend is fastest: a few steps of each, on the real members."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plait.errors import InputError
from plait.fleet._architecture import check
from plait.fleet._backend import Backend
from plait.fleet._groups import Place, make
from plait.fleet._trainee import State, Trainee

#: A stack is recorded when a shape comes up a second time, so the third step is the first fast one.
_WARM = 2
_STEPS = 3
#: Seconds: short steps go on for the first, as few of them say little; long ones end with the second.
_LEAST, _MOST = 0.15, 1.0


@dataclass(frozen=True)
class Choice:
    """A backend, how many members a group has at most, and the seconds that a step of all took each way."""

    kind: str
    size: int
    seconds: dict[str, float]


def choose(trainees: Sequence[Trainee], states: Callable[[Trainee], State], place: Place) -> Choice:
    """The fastest way to train members that are alike; their states stay as they are."""
    count = len(trainees)
    fast = "stacked" if trainees[0].member.lora is None else "adapters"
    if fast == "stacked" and not _stackable(trainees):
        return Choice("sequential", count, {})
    seconds = {("sequential", count): _timed("sequential", trainees, states, place)}
    for size in sorted({count, *(s for s in (4, 16) if s < count)}, reverse=True):
        # A group of `size` stands for all: its time, as many times as there are groups.
        seconds[fast, size] = _timed(fast, trainees[:size], states, place) * count / size
    kind, size = min(seconds, key=lambda key: seconds[key])
    told = {f"{kind} × {size}": round(value, 6) for (kind, size), value in seconds.items()}
    return Choice(kind, size, told)


def _stackable(trainees: Sequence[Trainee]) -> bool:
    try:
        check(trainees)
    except InputError:
        return False
    return True


def _timed(kind: str, trainees: Sequence[Trainee], states: Callable[[Trainee], State], place: Place) -> float:
    """Seconds of a step; infinite for what a backend can't do."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            backend = make(kind, trainees, [states(t) for t in trainees], place)
            for _ in range(_WARM if kind != "sequential" else 1):
                _advanced(backend, trainees)
            taken: list[float] = []
            while not taken or sum(taken) < (_MOST if len(taken) < _STEPS else _LEAST):
                taken.append(_advanced(backend, trainees))
            return min(taken)
    except InputError:
        return math.inf


def _advanced(backend: Backend, trainees: Sequence[Trainee]) -> float:
    started = time.perf_counter()
    backend.step()
    return time.perf_counter() - started

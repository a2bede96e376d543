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

#: Steps before those that count: a stack is recorded in its third, so the fourth is the first fast one.
_WARM = {"stacked": 3}
#: Steps of each way, taken in turns: so many and for so many seconds at least; of long ones, two.
_STEPS, _LEAST, _MOST = 3, 0.15, 1.0
#: One group is timed for all of its size; alone it has the caches for itself, so it must be faster by this.
_PART = 1.1
#: The loop is left only for what is faster by this, as timings are no surer.
_LEAVE = 1.03
#: Bytes of weights, gradients and moments up to which all ways are kept ready at once, to be timed in turns.
_TOGETHER = 1 << 30

_Way = tuple[str, int]


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
    sizes = sorted({count, *(s for s in (4, 16) if s < count)}, reverse=True)
    ways: list[_Way] = [("sequential", count), *((fast, size) for size in sizes)]
    held = 4 * sum(p.nbytes for t in trainees for p in states(t).parameters.values())
    turns = [ways] if held * len(ways) <= _TOGETHER else [[way] for way in ways]
    seconds: dict[_Way, float] = {}
    for some in turns:
        for (kind, size), taken in _timed(some, trainees, states, place).items():
            seconds[kind, size] = taken * count / size * (_PART if size < count else 1)
    kind, size = min(seconds, key=lambda way: seconds[way] * (1 if way[0] == "sequential" else _LEAVE))
    told = {f"{kind} × {size}": round(value, 6) for (kind, size), value in seconds.items()}
    return Choice(kind, size, told)


def _stackable(trainees: Sequence[Trainee]) -> bool:
    try:
        check(trainees)
    except InputError:
        return False
    return True


def _timed(
    ways: Sequence[_Way], trainees: Sequence[Trainee], states: Callable[[Trainee], State], place: Place
) -> dict[_Way, float]:
    """Seconds of a step of each way's first group; infinite for what a backend can't do."""
    ready: dict[_Way, Backend] = {}
    for kind, size in ways:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                backend = make(kind, trainees[:size], [states(t) for t in trainees[:size]], place)
                for _ in range(_WARM.get(kind, 1)):
                    backend.step()
        except InputError:
            continue
        ready[kind, size] = backend
    taken: dict[_Way, list[float]] = {way: [] for way in ready}
    passed, rounds = 0.0, 0
    while ready and (rounds < 2 or passed < len(ready) * (_MOST if rounds < _STEPS else _LEAST)):
        rounds += 1
        for way, backend in ready.items():
            started = time.perf_counter()
            backend.step()
            taken[way].append(time.perf_counter() - started)
            passed += taken[way][-1]
    return {way: min(taken[way]) if way in taken else math.inf for way in ways}

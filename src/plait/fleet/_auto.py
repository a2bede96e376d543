"""Which backend is fastest: a few steps of each, on the real members."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from plait.errors import InputError
from plait.fleet._architecture import check
from plait.fleet._backend import Backend
from plait.fleet._groups import Place, make
from plait.fleet._trainee import State, Trainee
from plait.tasks import copied

#: Steps before those that count: a stack is recorded in its third, so the fourth is the first fast one.
_WARM = {"stacked": 3}
#: Steps of each way, taken in turns: so many and for so many seconds at least; of long ones, fewer.
_STEPS, _LEAST, _MOST, _ROUNDS = 3, 0.15, 1.0, 2
#: Seconds at least, where ways are timed whole, and of a turn then: one that has caches for itself, as when
#: it trains.
_SURE, _TURN = 0.6, 0.1
#: A first look is short and takes one group for all of its size, and a few members of the loop; ways within
#: this of the best are timed longer and whole then, as a group alone has the caches for itself, if that is a
#: small part of the training.
_NEAR = 1.6
#: Members of the loop whose steps a first look takes for those of all.
_LOOPED = 16
#: Of the training's time, what timing longer may take: no choice among near ways is worth more.
_SHARE = 0.05
#: Of the training's time in the loop, what a first look at stacks may take; a shorter training stays there.
_TRIED = 0.2
#: Seconds that recording a stack takes, and members of the loop that tell how long a step of all is.
_RECORDING, _GLANCED = 0.1, 4
#: The loop is left only for what is faster by this: between equals, it is the one that takes least memory.
_LEAVE = 1.01
#: Bytes of weights, gradients and moments up to which all ways are kept ready at once, to be timed in turns.
_TOGETHER = 1 << 30

_Way = tuple[str, int]


@dataclass(frozen=True)
class Choice:
    """A backend, how many members a group has at most, and the seconds that a step of all took each way."""

    kind: str
    size: Annotated[int, Field(ge=1)]
    seconds: dict[str, float]


def choose(trainees: Sequence[Trainee], states: Callable[[Trainee], State], place: Place) -> Choice:
    """The fastest way to train members that are alike; their states stay as they are."""
    count = len(trainees)
    fast = "stacked" if trainees[0].member.lora is None else "adapters"
    if fast == "stacked" and not _stackable(trainees):
        return Choice("sequential", count, {})
    # Where batches are of unequal sizes, one group says nothing of the others.
    parts = (4, 16) if len({_size(trainee) for trainee in trainees}) == 1 else ()
    sizes = sorted({count, *(size for size in parts if size < count)}, reverse=True)
    ways: list[_Way] = [("sequential", count), *((fast, size) for size in sizes)]
    timing = _Timing(trainees, states, place)
    if fast == "stacked":
        step = timing.glance()
        if _looking(sizes, step) > timing.allowed(step, _TRIED):
            return Choice("sequential", count, {f"sequential × {count}": round(step, 6)})
    seconds = timing(ways, whole=False, least=_LEAST)
    near = [way for way in ways if seconds[way] <= _NEAR * min(seconds.values())]
    left = timing.allowed(min(seconds.values()))
    sure = sorted(near, key=lambda way: seconds[way])
    while len(sure) > 1 and sum(_cost(way, seconds[way]) for way in sure) > left:
        sure.pop()
    if len(sure) > 1:
        near = [way for way in near if way in sure]
        seconds |= timing(near, whole=True, least=min(_SURE, left / len(near)))
    kind, size = min(near, key=lambda way: seconds[way] * (1 if way[0] == "sequential" else _LEAVE))
    told = {f"{kind} × {size}": round(value, 6) for (kind, size), value in seconds.items()}
    return Choice(kind, size, told)


def _size(trainee: Trainee) -> tuple[int, int]:
    member = trainee.member
    return min(member.batch_size, len(trainee.examples)), member.accumulate


def _looking(sizes: Sequence[int], step: float) -> float:
    """Seconds that a first look at stacks takes, if they are no faster than the loop with its `step`."""
    share = sum(sizes) / max(sizes)
    return (_ROUNDS + _WARM["stacked"]) * step * share + _RECORDING * len(sizes)


def _spread(trainees: Sequence[Trainee], most: int) -> Sequence[Trainee]:
    """Some of the members, evenly from those with small batches to those with large ones."""
    stride = -(-len(trainees) // most)
    return sorted(trainees, key=_size)[stride // 2 :: stride]


def _cost(way: _Way, step: float) -> float:
    """Seconds at least that it takes to time a way whole, a step of which takes so many."""
    return _ROUNDS * max(step, _TURN) + _WARM.get(way[0], 1) * step


def apart(trainee: Trainee) -> Trainee:
    """A member whose network the loop may train; adapters never change theirs."""
    made = copy.copy(trainee)
    if trainee.member.lora is None:
        made.network = copied(trainee.network)
    return made


def _stackable(trainees: Sequence[Trainee]) -> bool:
    try:
        check(trainees)
    except InputError:
        return False
    return True


@dataclass(frozen=True)
class _Timing:
    """Seconds that a step of all members takes, each way."""

    trainees: Sequence[Trainee]
    states: Callable[[Trainee], State]
    place: Place

    def __call__(self, ways: Sequence[_Way], *, whole: bool, least: float) -> dict[_Way, float]:
        """Time ways against each other.

        Args:
            ways: backends, and how many members a group of theirs has.
            whole: all groups are timed, not the first one for all.
            least: seconds of each way.

        Returns:
            Seconds; infinite for what a backend can't do.
        """
        held = 4 * sum(p.nbytes for t in self.trainees for p in self.states(t).parameters.values())
        turns = [ways] if held * len(ways) <= _TOGETHER else [[way] for way in ways]
        return {way: seconds for some in turns for way, seconds in self._in_turns(some, whole, least).items()}

    def _in_turns(self, ways: Sequence[_Way], whole: bool, least: float) -> dict[_Way, float]:
        groups = {way: self._groups(way, whole) for way in ways}
        ready = {way: backends for way in ways if (backends := self._warm(way[0], groups[way]))}
        taken: dict[_Way, list[float]] = {way: [] for way in ready}
        passed, rounds = 0.0, 0
        parts = {way: len(self.trainees) / sum(map(len, groups[way])) for way in ways}
        enough = math.inf
        while ready and (rounds < _ROUNDS or passed < (len(ready) * _MOST if rounds < _STEPS else enough)):
            rounds += 1
            for way, backends in ready.items():
                until = passed + (_TURN if whole else 0.0)
                while True:
                    started = time.perf_counter()
                    for backend in backends:
                        backend.step()
                    taken[way].append(time.perf_counter() - started)
                    passed += taken[way][-1]
                    if passed >= until:
                        break
            best = min(min(taken[way]) * parts[way] for way in ready)
            enough = min(len(ready) * least, self.allowed(best))
        return {way: min(taken[way]) * parts[way] if way in taken else math.inf for way in ways}

    def glance(self) -> float:
        """Seconds of a step in the loop, by those of a few members; infinite if one can't be taken."""
        count = len(self.trainees)
        backends = self._warm("sequential", [[trainee] for trainee in _spread(self.trainees, _GLANCED)])
        started = time.perf_counter()
        for backend in backends:
            backend.step()
        return (time.perf_counter() - started) * count / len(backends) if backends else math.inf

    def allowed(self, step: float, share: float = _SHARE) -> float:
        """Seconds that timing may take, where a step of all takes `step`."""
        return share * step * max(t.steps - t.step for t in self.trainees)

    def _groups(self, way: _Way, whole: bool) -> list[Sequence[Trainee]]:
        """The members that take steps together; of a first look, some for all."""
        kind, size = way
        if whole:
            return [self.trainees[at : at + size] for at in range(0, len(self.trainees), size)]
        return [_spread(self.trainees, _LOOPED) if kind == "sequential" else self.trainees[:size]]

    def _warm(self, kind: str, groups: Sequence[Sequence[Trainee]]) -> list[Backend]:
        """A backend for each group, past its first steps; none if they can't be taken."""
        backends = []
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for group in groups:
                    some = [apart(t) for t in group] if kind == "sequential" else group
                    backends.append(make(kind, some, [self.states(t) for t in some], self.place))
                    for _ in range(_WARM.get(kind, 1)):
                        if backends[-1].step().errors:
                            return []
        except Exception:  # whatever PyTorch says: whose step can't be taken at all shows in training
            return []
        return backends

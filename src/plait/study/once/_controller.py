"""Puts an experiment's sequences into a run more or less often, until its number is where it should be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from plait.errors import InputError
from plait.fleet import Callback, Fleet
from plait.study.once._experiment import Drawn, Experiment, generator
from plait.study.once._placement import Ground, Place
from plait.study.once._stream import Inserted, Run


@dataclass(frozen=True)
class Controlled:
    """An experiment whose sequences are put in as often as its number Y asks for.

    Every so many steps Y is read. Below the target the rate is multiplied by the factor, from the target on
    divided by it; then so many repeats of each sequence are put into what is seen up to the next reading. A
    rate that is no whole number is drawn: 2.3 is 2 repeats, or 3 with a probability of 0.3.

    Args:
        experiment: what is put in; its own `repeats` say nothing here, but a sequence with 0 is a control.
        target: for Y, which rises with repeats.
        every: steps between readings.
        rate: repeats of each sequence up to the second reading.
        factor: by which the rate rises and falls.
        most: the highest rate.
    """

    experiment: Experiment
    target: float
    every: int
    rate: float = 1.0
    factor: float = 2.0
    most: float = 64.0

    def __post_init__(self) -> None:
        where = f"experiment `{self.experiment.name}`"
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise InputError(f"`every` is {self.every!r}", where=where, hint="it is a number of steps")
        if not math.isfinite(self.target):
            raise InputError(f"`target` is {self.target!r}", where=where, hint="give a number")
        if not (0 < self.rate <= self.most < math.inf and 1 < self.factor < math.inf):
            hint = "a rate is above 0 and at most `most`, a factor above 1"
            what = f"`rate` is {self.rate!r}, `factor` {self.factor!r}, `most` {self.most!r}"
            raise InputError(what, where=where, hint=hint)


@dataclass(frozen=True)
class Reading:
    """What a controller read, and what it did then.

    Args:
        step: after so many steps.
        value: Y.
        rate: repeats that each sequence was to get up to the next reading.
        tokens: that were put in.
    """

    step: int
    value: float
    rate: float
    tokens: int


class Controller(Callback):
    """One controlled experiment in a run.

    Args:
        controlled: what it does.
        drawn: its sequences.
        run: the run.
        ground: the run's positions, which all experiments share.
        examples: of the run, which it changes as far as they were not seen.
        member: the run's name in the fleet.
        seed: of its draws.
    """

    def __init__(
        self,
        controlled: Controlled,
        drawn: Drawn,
        run: Run,
        ground: Ground,
        examples: Inserted,
        member: str,
        seed: int,
    ) -> None:
        self.controlled, self.drawn, self.run, self.member = controlled, drawn, run, member
        self.ground, self.examples, self.seed = ground, examples, seed
        self.readings: list[Reading] = []
        self.places: list[Place] = []

    def on_start(self, fleet: Fleet) -> None:
        if not self.readings:
            self._read(fleet, 0, self.controlled.rate)

    def on_step(self, fleet: Fleet, record: Mapping[str, Any]) -> None:
        step = int(record["step"])
        if record["member"] != self.member or step % self.controlled.every or step >= self.run.steps:
            return
        self._read(fleet, step, self.readings[-1].rate)

    def facts(self) -> dict[str, Any]:
        places = [asdict(each) | {"tokens": list(each.tokens)} for each in self.places]
        return {"readings": [asdict(each) for each in self.readings], "places": places}

    def restore(self, facts: Mapping[str, Any]) -> None:
        self.readings = [Reading(**each) for each in facts["readings"]]
        self.places = [Place(**{**each, "tokens": tuple(each["tokens"])}) for each in facts["places"]]
        for each in self.places:
            self.ground.mark(each.document, each.start, len(each.tokens))
        self.examples.put(self.places)

    def _read(self, fleet: Fleet, step: int, rate: float) -> None:
        own = self.controlled
        value = self.drawn.read(fleet[self.member], f"at step {step}")
        if step:
            rate = min(rate * own.factor, own.most) if value < own.target else rate / own.factor
        tokens = self._put(step, rate)
        self.readings.append(Reading(step, value, rate, tokens))

    def _put(self, step: int, rate: float) -> int:
        """Put sequences into what is seen up to the next reading, if there is room; how many tokens."""
        random = generator(self.seed, self.drawn.name, "rate", str(step))
        count = int(rate) + int(random.random() < rate % 1)
        within = (self.run.until(step), self.run.until(step + self.controlled.every))
        found: list[Place] = []
        for sequence, wanted in zip(self.drawn.sequences, self.drawn.repeats, strict=True):
            for piece in self.ground.pieces(sequence) * (count if wanted else 0):
                taken = self.ground.take(len(piece), random, within)
                if taken is not None:
                    found.append(Place(self.drawn.name, *taken, piece))
        self.examples.put(found)
        self.places += found
        return sum(len(place.tokens) for place in found)

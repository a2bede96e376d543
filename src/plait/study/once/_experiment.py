"""An experiment on the data of a run: what is put into them, how often, and the number that it is read by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from plait.errors import InputError, raise_all
from plait.numerics import stream_key
from plait.study.once._aside import aside

Sequences = Sequence[Sequence[int]]
#: Of a network and the experiment's sequences, the number Y.
Probe = Callable[[nn.Module, Sequences], float]


@dataclass(frozen=True)
class Experiment:
    """One data intervention.

    Args:
        name: in tables; its draws depend on it and the seed alone.
        sequences: of tokens, or a function that draws them by a numpy `Generator`.
        probe: a function of a network and the sequences that gives the number Y. It gets a copy of the
            network, and what it draws at random changes no other draw.
        repeats: how often each sequence is put in: one number for all, or one for each. A sequence with 0 is
            a control, that the probe can hold the others against.
    """

    name: str
    sequences: Sequences | Callable[[np.random.Generator], Sequences]
    probe: Probe
    repeats: int | Sequence[int] = 1

    def drawn(self, seed: int) -> Drawn:
        """Its sequences for a seed.

        Raises:
            InputError: there is none, one is empty or holds no tokens; the repeats are not theirs.
        """
        where = f"experiment `{self.name}`"
        given: Any = self.sequences
        if callable(given):
            given = given(generator(seed, self.name))
        try:
            sequences = tuple(tuple(_token(token) for token in sequence) for sequence in given)
        except (TypeError, ValueError) as error:
            hint = "give sequences of tokens: whole numbers from 0 on"
            raise InputError(f"its sequences hold no tokens: {error}", where=where, hint=hint) from error
        if not sequences or not all(sequences):
            what = "a sequence is empty" if sequences else "it has no sequences"
            hint = "what is not to be put in has `repeats` 0"
            raise InputError(what, where=where, hint=hint)
        repeats: Any = self.repeats
        repeats = list(repeats) if isinstance(repeats, Iterable) else [repeats] * len(sequences)
        if len(repeats) != len(sequences):
            what = f"it has {len(repeats)} repeats for {len(sequences)} sequences"
            raise InputError(what, where=where, hint="give one number, or one for each sequence")
        for count in repeats:
            if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 0:
                raise InputError(f"`repeats` has {count!r}", where=where, hint="give whole numbers from 0 on")
        return Drawn(self.name, sequences, tuple(int(count) for count in repeats), self.probe)


def _token(value: Any) -> int:
    if isinstance(value, str | bytes | float | bool) or int(value) < 0:
        raise ValueError(f"{value!r} is no token")
    return int(value)


@dataclass(frozen=True)
class Drawn:
    """An experiment with the sequences that it has for a seed."""

    name: str
    sequences: tuple[tuple[int, ...], ...]
    repeats: tuple[int, ...]
    probe: Probe

    @property
    def tokens(self) -> int:
        """How many tokens are put in, all repeats together."""
        return sum(len(s) * count for s, count in zip(self.sequences, self.repeats, strict=True))

    @property
    def largest(self) -> int:
        """The largest token of all sequences."""
        return max(max(sequence) for sequence in self.sequences)

    def read(self, network: nn.Module, when: str) -> float:
        """Its number Y.

        Args:
            network: it; what the probe does to it is lost.
            when: for messages, such as `at step 10`.

        Raises:
            InputError: the probe gives none, or fails.
        """
        where = f"experiment `{self.name}`, {when}"
        try:
            with aside(network) as copied:
                value = self.probe(copied, self.sequences)
        except InputError as error:
            raise error.located(lambda own: f"{where}, {own}" if own else where) from error
        except Exception as error:
            raise InputError(f"its probe failed: {type(error).__name__}: {error}", where=where) from error
        try:
            found = float(value)
        except (TypeError, ValueError) as error:
            what = f"its probe gives a {type(value).__name__}"
            raise InputError(what, where=where, hint="a probe gives one number") from error
        if not np.isfinite(found):
            raise InputError(f"its probe gives {found}", where=where)
        return found


def generator(seed: int, *names: str) -> np.random.Generator:
    """A generator that depends on a seed and some names alone."""
    low, high = stream_key(seed, "experiment", "\0".join(names))
    return np.random.Generator(np.random.Philox(key=low | high << 32))


def check_names(experiments: Sequence[Experiment]) -> None:
    """Nothing, if each is an experiment with a name of its own.

    Raises:
        InputError: two have one name, one has none, or is no experiment.
    """
    for each in experiments:
        if not isinstance(each, Experiment):
            hint = "give experiments; one that is controlled is tested by its own, `controlled.experiment`"
            raise InputError(f"a {type(each).__name__} is no experiment here", hint=hint)
    names = [experiment.name for experiment in experiments]
    problems = [
        InputError(f"two experiments are called `{name}`", hint="give each a name of its own")
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    problems += [
        InputError(f"an experiment's name is {name!r}", hint="give it a text")
        for name in names
        if not isinstance(name, str) or not name
    ]
    raise_all(problems)

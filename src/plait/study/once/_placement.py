"""Where in a run sequences are put: anywhere with one probability, none upon another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plait.errors import InputError
from plait.study.once._experiment import Drawn, generator

#: Draws of a free place before all free places are counted.
_TRIES = 32


@dataclass(frozen=True)
class Place:
    """A piece of a sequence, and where it stands.

    Args:
        experiment: whose it is.
        document: number of the document that it stands in.
        start: its first token's place there.
        tokens: it.
    """

    experiment: str
    document: int
    start: int
    tokens: tuple[int, ...]


class Ground:
    """All training positions of a run, and which of them are taken.

    Args:
        lengths: of the run's documents, in tokens.
    """

    def __init__(self, lengths: NDArray[np.int64]) -> None:
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.first = np.concatenate([[0], np.cumsum(self.lengths)])
        self.taken = np.zeros(int(self.first[-1]), dtype=bool)
        #: Length, first and last document → sums of how many places each document has for so many tokens.
        self._sums: dict[tuple[int, int, int], NDArray[np.int64]] = {}

    @property
    def longest(self) -> int:
        """Tokens of the longest document."""
        return int(self.lengths.max(initial=0))

    def pieces(self, sequence: Sequence[int]) -> list[tuple[int, ...]]:
        """A sequence cut into parts of the longest document's length."""
        size = self.longest
        return [tuple(sequence[start : start + size]) for start in range(0, len(sequence), size)]

    def take(
        self, count: int, random: np.random.Generator, within: tuple[int, int] | None = None
    ) -> tuple[int, int] | None:
        """So many free positions in a row, of one document, drawn uniformly from all there are.

        Args:
            count: of positions.
            random: draws.
            within: documents from one up to another; all if None.

        Returns:
            document and start, which are taken from then on; None if nothing is free.
        """
        low, high = within or (0, len(self.lengths))
        starts = self._sums.get((count, low, high))
        if starts is None:
            starts = np.cumsum(np.maximum(self.lengths[low:high] - count + 1, 0))
            self._sums[count, low, high] = starts
        total = int(starts[-1]) if len(starts) else 0
        if total == 0:
            return None
        for _ in range(_TRIES):
            drawn = int(random.integers(total))
            place = int(np.searchsorted(starts, drawn, side="right"))
            document = low + place
            start = drawn - (int(starts[place - 1]) if place else 0)
            begin = int(self.first[document]) + start
            if not self.taken[begin : begin + count].any():
                return self.mark(document, start, count)
        free = self._free(count, low, high)
        if len(free) == 0:
            return None
        begin = int(free[random.integers(len(free))])
        document = int(np.searchsorted(self.first, begin, side="right")) - 1
        return self.mark(document, begin - int(self.first[document]), count)

    def mark(self, document: int, start: int, count: int) -> tuple[int, int]:
        """Take so many positions of a document; where they are."""
        begin = int(self.first[document]) + start
        self.taken[begin : begin + count] = True
        return document, start

    def _free(self, count: int, low: int, high: int) -> NDArray[np.int64]:
        """First positions of all stretches that are free and lie in one document."""
        begin, end = int(self.first[low]), int(self.first[high])
        sums = np.concatenate([[0], np.cumsum(self.taken[begin:end])])
        starts = np.arange(begin, end - count + 1)
        clear = sums[count:] == sums[:-count] if len(starts) else np.zeros(0, dtype=bool)
        document = np.searchsorted(self.first, starts, side="right") - 1
        inside = starts + count <= self.first[document + 1]
        return starts[clear & inside]


def place(experiments: Sequence[Drawn], ground: Ground, seed: int) -> list[Place]:
    """Places for all repeats of all sequences, the longest first, so that they find room.

    Each experiment draws by a generator of its own. So where its sequences stand depends on other experiments
    only where they would stand upon others that are longer, or as long and of an earlier experiment.

    Args:
        experiments: what is put in.
        ground: the run's positions; what is placed is taken afterwards.
        seed: of the draws.

    Raises:
        InputError: there are more tokens than positions, or no place is left for some.
    """
    wanted, free = sum(each.tokens for each in experiments), int((~ground.taken).sum())
    if wanted > free:
        hint = "train for longer, or put in less"
        raise InputError(f"{wanted} tokens are to be put into a run of {free}", hint=hint)
    draws = {each.name: generator(seed, each.name, "places") for each in experiments}
    pieces = [
        (each.name, piece)
        for each in experiments
        for sequence, count in zip(each.sequences, each.repeats, strict=True)
        for piece in ground.pieces(sequence) * count
    ]
    found = []
    for name, piece in sorted(pieces, key=lambda each: -len(each[1])):
        taken = ground.take(len(piece), draws[name])
        if taken is None:
            what = f"no place is left for {len(piece)} tokens in a row"
            raise InputError(what, where=f"experiment `{name}`", hint="train for longer, or put in less")
        found.append(Place(name, *taken, piece))
    return found

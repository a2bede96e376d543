"""Examples of several tasks in one split, and a column that says whose each is."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from plait.tasks._examples import Batch, Columns, Examples, Ragged, filling
from plait.tasks._losses import TASK
from plait.tasks._subset import table_of


@dataclass(frozen=True, eq=False)
class Mixed:
    """Examples of several tasks one after another.

    Args:
        parts: each task's.
        lengths: how many of each there are here; a part that is shorter comes round again.
        places: of the tasks in the mixture.
    """

    parts: tuple[Examples, ...]
    lengths: tuple[int, ...]
    places: tuple[int, ...]

    def __len__(self) -> int:
        return sum(self.lengths)

    @functools.cached_property
    def _starts(self) -> NDArray[np.int64]:
        return np.cumsum([0, *self.lengths])

    @property
    def starts(self) -> list[int]:
        """The place of each task's first example."""
        return self._starts[:-1].tolist()

    @property
    def padding(self) -> Mapping[str, int]:
        """What fills up sequences, by column."""
        return padding(self.parts[0])

    def batch(self, rows: Sequence[int]) -> Batch:
        index = np.asarray(rows, dtype=np.int64)
        owner = np.searchsorted(self._starts, index, side="right") - 1
        chosen = [
            (part, np.flatnonzero(owner == number), self._starts[number])
            for number, part in enumerate(self.parts)
        ]
        batches = [
            (part.batch((index[at] - start) % len(part)), torch.from_numpy(at))
            for part, at, start in chosen
            if len(at)
        ]
        whole = {
            name: _placed(
                [(batch[name], at) for batch, at in batches], len(index), filling(self.padding, name)
            )
            for name in batches[0][0]
        }
        return whole | {TASK: torch.from_numpy(np.array(self.places)[owner])}


def _placed(parts: Sequence[tuple[Tensor, Tensor]], rows: int, fill: int) -> Tensor:
    """Columns of parts of a batch in one, each row in its place; shorter sequences filled up."""
    first = parts[0][0]
    shape = [max(sizes) for sizes in zip(*(tuple(t.shape[1:]) for t, _ in parts), strict=True)]
    whole = first.new_full((rows, *shape), fill)
    for tensor, at in parts:
        missing = [size - own for size, own in zip(shape, tensor.shape[1:], strict=True)]
        pads = [pad for size in reversed(missing) for pad in (0, size)]
        whole[at] = F.pad(tensor, pads, value=fill) if any(missing) else tensor
    return whole


def padding(examples: Examples) -> Mapping[str, int]:
    """What fills up sequences of examples, by column."""
    return getattr(table_of(examples)[0], "padding", {})


def in_memory(examples: Examples) -> bool:
    """Whether all that examples hold is in memory, so that looking at it costs little."""
    if isinstance(examples, Mixed):
        return all(in_memory(part) for part in examples.parts)
    return isinstance(table_of(examples)[0], Columns | Ragged)

"""Some rows of examples, so that many members can share one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plait.tasks._examples import Batch, Examples


@dataclass(frozen=True, eq=False)
class Subset:
    """Examples `rows` of `whole`, in that order."""

    whole: Examples
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: Sequence[int]) -> Batch:
        return self.whole.batch(self.rows[np.asarray(rows, dtype=np.int64)])  # type: ignore[arg-type]


def table_of(examples: Examples) -> tuple[Examples, NDArray[np.int64] | None]:
    """What examples are rows of, and which rows: themselves and None if they are no `Subset`."""
    rows = None
    while isinstance(examples, Subset):
        rows = examples.rows if rows is None else examples.rows[rows]
        examples = examples.whole
    return examples, rows

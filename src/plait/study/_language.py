"""Language tasks as ways see them that weigh experts: the tokens of examples, and where each text begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from plait.errors import InputError
from plait.tasks import Batch, ByInput, NextToken, Suite, Task

_IDS, _MASK, _PLACES = "input_ids", "attention_mask", "position_ids"


@dataclass(frozen=True)
class Texts:
    """Tokens of some examples.

    Args:
        ids: `(n, length)`.
        real: which of them are no padding, `(n, length)`.
        begins: which have nothing before them: the first of each text, and padding; `(n, length)`.
    """

    ids: Tensor
    real: Tensor
    begins: Tensor

    @classmethod
    def of(cls, ids: Tensor, mask: Tensor | None = None, places: Tensor | None = None) -> Texts:
        """Texts in rows.

        Args:
            ids: `(n, length)`.
            mask: 0 for padding, `(n, length)`; nothing is padding if None.
            places: of tokens in their texts, `(n, length)`, where a row holds several; 0 begins one.
        """
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        begins = ~real
        begins[:, 0] = True
        begins[:, 1:] |= ~real[:, :-1]
        return cls(ids, real, begins if places is None else begins | (places == 0))

    @classmethod
    def of_batch(cls, task: Task, batch: Batch) -> Texts:
        """The texts of a batch of a language task."""
        if isinstance(task.meet, ByInput):
            return cls.of(batch[task.meet.name])
        return cls.of(batch[_IDS], batch.get(_MASK), batch.get(_PLACES))

    def __iter__(self) -> Iterator[tuple[int, slice]]:
        """The row of each text, and where it stands there."""
        for row, (begins, real) in enumerate(zip(self.begins.tolist(), self.real.tolist(), strict=True)):
            starts = [place for place, begin in enumerate(begins) if begin]
            for start, stop in zip(starts, [*starts[1:], len(begins)], strict=True):
                if real[start]:
                    yield row, slice(start, stop)

    def part(self, row: int, place: slice) -> Texts:
        """One text alone."""
        return Texts(*(each[row : row + 1, place] for each in (self.ids, self.real, self.begins)))


def problems_of_language(suite: Suite, what: str, where: str) -> list[InputError]:
    """Tasks that are none of next tokens, or whose tokens can't be seen.

    Args:
        suite: its tasks.
        what: needs them, for messages.
        where: it stands.
    """
    problems = []
    for task in suite.tasks:
        if not isinstance(task.loss, NextToken) or task.head is not None:
            told = f"{what} needs the probability of a text, which task `{task.name}` has not"
            hint = "it takes language models: tasks of the next token, without heads of their own"
            problems.append(InputError(told, where=where, hint=hint))
        elif not isinstance(task.meet, ByInput) and _IDS not in getattr(task.meet, "names", ()):
            told = f"{what} can't see the tokens of task `{task.name}`"
            hint = "models are called with `input`, or by keywords with `input_ids`"
            problems.append(InputError(told, where=where, hint=hint))
    return problems

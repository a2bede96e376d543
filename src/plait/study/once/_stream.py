"""The examples of a run in the order in which they are seen, with sequences in the place of some tokens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from plait.errors import InputError
from plait.fleet import Member, visits
from plait.study.once._placement import Ground, Place
from plait.tasks import IGNORED, Batch, ByInput, Columns, Examples, NextToken, Ragged, Task

#: Says how many bytes of text an example has, which is no longer so.
_SIZE = "bytes"


@dataclass(frozen=True)
class Run:
    """A run of one member over a task's examples, visit by visit.

    Args:
        task: whose training split is seen.
        member: how it is trained.
        visited: the example of each visit, in order.
        documents: `(documents, 3)`: visit, first token and tokens of each.
    """

    task: Task
    member: Member
    visited: NDArray[np.int64]
    documents: NDArray[np.int64]

    @property
    def batch_size(self) -> int:
        """Examples in a micro-batch."""
        return min(self.member.batch_size, len(self.task.split("train")))

    @property
    def steps(self) -> int:
        """How many steps it has."""
        return len(self.visited) // (self.batch_size * self.member.accumulate)

    def ground(self) -> Ground:
        """Its positions, all free."""
        return Ground(self.documents[:, 2])

    def until(self, step: int) -> int:
        """How many documents are seen before a step."""
        visit = min(step, self.steps) * self.batch_size * self.member.accumulate
        return int(np.searchsorted(self.documents[:, 0], visit))

    def inserted(self, places: Iterable[Place]) -> Inserted:
        """The examples of the run with sequences in their places.

        They are in such an order that a member sees them, once each, in the order of the visits.
        """
        order = visits(self.trained(self.task), len(self.visited))
        source = np.empty_like(self.visited)
        source[order] = self.visited
        examples = Inserted(self.task.split("train"), source, order, self.documents, _columns(self.task))
        examples.put(places)
        return examples

    def trained(self, task: Task, name: str | None = None) -> Member:
        """The member that sees such examples."""
        name = self.member.name if name is None else name
        return replace(
            self.member, name=name, task=task, steps=self.steps, epochs=None, batch_size=self.batch_size
        )


class Inserted:
    """Examples of another split, some of whose tokens give way to sequences.

    Args:
        examples: the split.
        source: for each example, which of the split's it is.
        order: for each visit, which example is seen.
        documents: as for `Run`.
        columns: of tokens and labels.
    """

    def __init__(
        self,
        examples: Examples,
        source: NDArray[np.int64],
        order: NDArray[np.int64],
        documents: NDArray[np.int64],
        columns: tuple[str, str],
    ) -> None:
        self.examples, self.source, self.order = examples, source, order
        self.documents, self.columns = documents, columns
        self.padding = getattr(examples, "padding", {})
        self.places: defaultdict[int, list[tuple[int, Place]]] = defaultdict(list)

    def __len__(self) -> int:
        return len(self.source)

    def put(self, places: Iterable[Place]) -> None:
        """Put sequences in the place of what is there."""
        for place in places:
            visit, first, _ = self.documents[place.document]
            self.places[int(self.order[visit])].append((int(first), place))

    def batch(self, rows: Sequence[int]) -> Batch:
        numbers = np.asarray(rows, dtype=np.int64)
        found = self.examples.batch(self.source[numbers])  # type: ignore[arg-type]
        found = {name: column for name, column in found.items() if name != _SIZE}
        tokens, labels = self.columns
        if not any(int(number) in self.places for number in numbers):
            return found
        found |= {name: found[name].clone() for name in self.columns}
        for row, number in enumerate(numbers):
            for first, place in self.places.get(int(number), ()):
                new = torch.tensor(place.tokens, dtype=found[tokens].dtype)
                begin = first + place.start
                found[tokens][row, begin : begin + len(new)] = new
                # A document's first token has nothing that it could be told from.
                skip = int(place.start == 0 and found[labels][row, begin] == IGNORED)
                found[labels][row, begin + skip : begin + len(new)] = new[skip:]
        return found


def run_of(task: Task, member: Member) -> Run:
    """What a member sees of a task.

    Raises:
        InputError: the task is none of next tokens, or its examples are in no table.
    """
    if not isinstance(task.loss, NextToken):
        hint = "give a task of next tokens, such as `language_task` makes"
        raise InputError("its loss is not that of next tokens", where=f"task `{task.name}`", hint=hint)
    examples = task.split("train")
    visited = visits(member, len(examples))
    tokens, _ = _columns(task)
    if isinstance(examples, Columns):
        length = examples.batch([0])[tokens].shape[1]
        count = np.arange(len(visited))
        documents = np.stack([count, np.zeros_like(count), np.full_like(count, length)], axis=1)
    elif isinstance(examples, Ragged):
        spans = [_spans(examples, row, tokens) for row in range(len(examples))]
        found = [(visit, *span) for visit, row in enumerate(visited) for span in spans[row]]
        documents = np.array(found, dtype=np.int64).reshape(-1, 3)
    else:
        hint = "give Columns or Ragged, such as `language_task` makes"
        what = f"a {type(examples).__name__} does not tell how long its sequences are"
        raise InputError(what, where=f"task `{task.name}`", hint=hint)
    return Run(task, member, visited, documents)


def _spans(examples: Ragged, row: int, tokens: str) -> list[tuple[int, int]]:
    """First token and number of tokens of each document in a row; packed ones begin at position 0."""
    length = len(examples.sequences[tokens][row])
    positions = examples.sequences.get("position_ids")
    starts = [0] if positions is None else [i for i, at in enumerate(positions[row]) if at == 0]
    return [(a, b - a) for a, b in zip(starts, [*starts[1:], length], strict=True)]


def _columns(task: Task) -> tuple[str, str]:
    """The names of tokens and labels."""
    assert isinstance(task.loss, NextToken)
    return task.meet.name if isinstance(task.meet, ByInput) else "input_ids", task.loss.label

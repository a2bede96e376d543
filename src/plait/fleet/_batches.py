"""The micro-batches of stacked members as one stack, or as one batch where all see the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plait.fleet._lengthened import check_lengthened, lengthened
from plait.fleet._trainee import Trainee
from plait.tasks import TASK, Batch, Columns, filling, padding, table_of

#: Lengths of sequences are filled up to a multiple of this, so that few shapes come up.
_LENGTHS = 16


@dataclass(frozen=True)
class Stack:
    """Batches of all members.

    Args:
        batch: name → `(members, rows, …)`, or `(rows, …)` if shared.
        rows: `(members, rows)`: 1 for an example, 0 for what fills up; None if nothing does.
        shared: whether all members see one batch.
    """

    batch: Batch
    rows: Tensor | None
    shared: bool


def gather(trainees: Sequence[Trainee], micro_batch: int, device: torch.device) -> Stack:
    """The next micro-batch of every member that runs; who has ended sees what the first of these sees."""
    first = next((t for t in trainees if t.running), trainees[0])
    seeing = [t if t.running else first for t in trainees]
    own = first.rows(micro_batch)
    chosen = [own if t is first else t.rows(micro_batch) for t in seeing]
    if _see_one(seeing, chosen, micro_batch):
        batch = first.read(own, micro_batch)
        for trainee in seeing[1:]:
            trainee.checked(batch, own)
        return Stack({name: t.to(device) for name, t in batch.items()}, None, True)
    longest = max(len(rows) for rows in chosen)
    counts = np.array([len(rows) for rows in chosen])
    batch = _stacked(seeing, chosen, longest, micro_batch)
    rows = None
    if (counts < longest).any():
        rows = torch.from_numpy((np.arange(longest) < counts[:, None]).astype(np.float32)).to(device)
    return Stack({name: t.to(device) for name, t in batch.items()}, rows, False)


def _see_one(trainees: Sequence[Trainee], rows: Sequence[NDArray[np.int64]], micro_batch: int) -> bool:
    """Whether all members see one batch."""
    first = trainees[0]
    if any(t.examples is not first.examples for t in trainees):
        return False
    if first.draws and len({t.data_key(micro_batch) for t in trainees}) > 1:
        return False
    return all(np.array_equal(r, rows[0]) for r in rows)


def _stacked(
    trainees: Sequence[Trainee], rows: Sequence[NDArray[np.int64]], longest: int, micro_batch: int
) -> Batch:
    """One gather if all rows lie in one table; a stack of batches otherwise."""
    parts = [table_of(t.examples) for t in trainees]
    table = parts[0][0]
    if isinstance(table, Columns) and all(other is table for other, _ in parts):
        filled = [_repeated(r, longest) for r in rows]
        places = [r if chosen is None else chosen[r] for (_, chosen), r in zip(parts, filled, strict=True)]
        index = torch.from_numpy(np.concatenate(places))
        shape = (len(rows), longest)
        return {n: c.index_select(0, index).unflatten(0, shape) for n, c in table.columns.items()}
    read: dict[str, Batch] = {}
    for trainee, own in zip(trainees, rows, strict=True):
        if trainee.member.name not in read:
            batch = trainee.read(own, micro_batch)
            if len(own) < longest:
                place = torch.from_numpy(_repeated(np.arange(len(own)), longest))
                batch = {name: column[place] for name, column in batch.items()}
            read[trainee.member.name] = batch
    batches = [read[trainee.member.name] for trainee in trainees]
    columns = {name: column for batch in reversed(batches) for name, column in batch.items()}
    if TASK in columns:  # a member that learns one task has no column that says which
        batches = [{TASK: torch.zeros(longest, dtype=torch.int64)} | batch for batch in batches]
    most = max(t.longest for t in trainees)
    stack = {n: _filled([b[n] for b in batches], filling(padding(table), n), most) for n in columns}
    for place, (trainee, batch) in enumerate(zip(trainees, batches, strict=True)):
        check_lengthened(trainee, batch, {name: column[place] for name, column in stack.items()}, most)
    return stack


def _repeated(rows: NDArray[np.int64], longest: int) -> NDArray[np.int64]:
    """Rows, and the first of them as often as fills them up: numbers of its own kind, with weight 0."""
    return rows if len(rows) == longest else np.append(rows, np.repeat(rows[:1], longest - len(rows)))


def _filled(tensors: Sequence[Tensor], value: int, most: int) -> Tensor:
    """Tensors stacked; those with shorter sequences are filled up on the right.

    Their length is rounded up to one of few, if `most`, the longest that can come, is no less.
    """
    if tensors[0].dim() < 2 or all(t.shape == tensors[0].shape for t in tensors):
        return torch.stack(list(tensors))
    longest = max(t.shape[1] for t in tensors)
    length = max(longest, min(-(-longest // _LENGTHS) * _LENGTHS, most))
    return torch.stack([lengthened(t, length, value) for t in tensors])

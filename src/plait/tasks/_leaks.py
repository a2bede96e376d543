"""Splits that overlap: by what examples say they come from, by the rows of one data set, by their numbers."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plait.errors import InputError
from plait.tasks._arrow_rows import row_bytes
from plait.tasks._examples import Columns, Examples, Items, Ragged
from plait.tasks._places import Place, place_of
from plait.tasks._subset import table_of

#: Bytes of a split up to which its numbers are compared with those of others.
_MOST = 256 << 20
_HINT = "give every example to one split, so that nothing leaks from training into scores"


def leaks(splits: Mapping[str, Examples], label: str | None, where: str) -> list[InputError]:
    """Which splits overlap, and in what.

    Args:
        splits: all of a task.
        label: the column of labels, which may well be alike.
        where: the task, for messages.
    """
    held = {name: _Split(examples, label) for name, examples in splits.items()}
    problems = []
    for first, second in itertools.combinations(held, 2):
        one, other = held[first], held[second]
        shared = one.source & other.source
        if shared:
            what = f"share `{min(map(str, shared))}`"
        elif (rows := _common(one, other)) > 0:
            what = f"share {rows} of one data set's examples"
        elif (twins := _twins(one, other)) > 0:
            what = f"hold the same numbers: {twins} of {min(len(one), len(other))} examples are in both"
        else:
            continue
        problems.append(InputError(f"splits `{first}` and `{second}` {what}", where=where, hint=_HINT))
    return problems


class _Split:
    """A split, and what is found out of it if it is asked for."""

    def __init__(self, examples: Examples, label: str | None) -> None:
        self.examples, self.label = examples, label
        self.table, self.rows = table_of(examples)
        chosen = getattr(getattr(self.table, "data", None), "_indices", None)
        if chosen is not None:  # a Hugging Face dataset's own choice of its table's rows
            own = chosen.column(0).to_numpy().astype(np.int64)
            self.rows = own if self.rows is None else own[self.rows]
        self._told: dict[tuple[str, ...], tuple[NDArray[Any], NDArray[Any]]] = {}

    def __len__(self) -> int:
        return len(self.examples)

    @functools.cached_property
    def source(self) -> set[str]:
        source = getattr(self.table, "source", None) or ()
        return set(source if self.rows is None else [source[int(row)] for row in self.rows if source])

    @functools.cached_property
    def place(self) -> Place | None:
        return place_of(self.examples, self.label)

    @functools.cached_property
    def inputs(self) -> Mapping[str, Any]:
        """Name → tensor or sequences of what models get, of all rows of the table that holds them."""
        held = _columns(self.table)
        return {name: column for name, column in held.items() if name != self.label}

    def told(self, names: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any]]:
        """A number for each different example, and how often it is there."""
        key = tuple(names)
        if key not in self._told:
            numbers = _numbers([self.inputs[name] for name in names], self.rows, len(self))
            self._told[key] = np.unique(numbers, return_counts=True)
        return self._told[key]


def _columns(held: Examples) -> Mapping[str, Any]:
    if isinstance(held, Columns):
        return held.columns
    if isinstance(held, Ragged):
        return {**held.sequences, **held.columns}
    if not isinstance(held, Items):
        return {}
    if hasattr(held.data, "_fingerprint") and hasattr(held.data, "column_names"):
        return dict(zip(held.data.data.column_names, held.data.data.columns, strict=True))
    tensors = getattr(held.data, "tensors", ()) if held.prepare is None else ()
    return dict(zip(held.names, tensors, strict=False))


def _common(one: _Split, other: _Split) -> int:
    """How many rows of one data set both have."""
    if one.examples is other.examples:
        return len(one)
    a, b = one.place, other.place
    if a is None or b is None or a.root != b.root or not len(a.rows) or not len(b.rows):
        return 0
    if a.rows.max() < b.rows.min() or b.rows.max() < a.rows.min():
        return 0
    return len(np.intersect1d(a.rows, b.rows))


def _twins(one: _Split, other: _Split) -> int:
    """How many examples of the smaller split the other has as often, if that is at least half of them.

    Real data hold some examples twice, and data of few values hold all of them many times, but not as often
    in two splits. What is the same for all examples says nothing.
    """
    if one.table is other.table:
        return 0  # they are held against each other by rows
    names = sorted(one.inputs.keys() & other.inputs.keys())
    if len(names) < min(len(one.inputs), len(other.inputs)) or not names:
        return 0
    if any(_kind(one.inputs[name]) != _kind(other.inputs[name]) for name in names):
        return 0
    if max(_size(split.inputs, names, len(split)) for split in (one, other)) > _MOST:
        return 0
    (values, counts), (others, other_counts) = one.told(names), other.told(names)
    if min(len(values), len(others)) < 2:
        return 0
    _, a, b = np.intersect1d(values, others, assume_unique=True, return_indices=True)
    twins = int(counts[a][counts[a] == other_counts[b]].sum())
    return twins if 2 * twins >= min(len(one), len(other)) else 0


def _kind(column: Any) -> Any:
    if isinstance(column, Tensor):
        return column.dtype, tuple(column.shape[1:])
    return str(column.type) if _is_arrow(column) else "sequences"


def _is_arrow(column: Any) -> bool:
    return hasattr(column, "chunks")


def _size(columns: Mapping[str, Any], names: Sequence[str], rows: int) -> int:
    """Bytes of so many rows; sequences are taken for what their first ones are."""
    total = 0
    for name in names:
        column = columns[name]
        if isinstance(column, Tensor):
            total += rows * column.element_size() * int(np.prod(column.shape[1:]))
        elif _is_arrow(column):
            total += rows * column.nbytes // max(len(column), 1)
        else:
            total += rows * 8 * max((len(sequence) for sequence in column[:64]), default=0)
    return total


def _numbers(columns: Sequence[Any], rows: NDArray[np.int64] | None, count: int) -> NDArray[np.int64]:
    """A number for each example, the same for the same bits: hashes of bytes are as good, and fast."""
    chosen = np.arange(count) if rows is None else np.asarray(rows)
    found = np.empty(count, np.int64)
    for start in range(0, count, 4096):
        part = chosen[start : start + 4096]
        hashes = [_hashes(column, part) for column in columns]
        found[start : start + 4096] = (
            hashes[0] if len(hashes) == 1 else list(map(hash, zip(*hashes, strict=True)))
        )
    return found


def _hashes(column: Any, rows: NDArray[np.int64]) -> list[int]:
    if _is_arrow(column):
        return list(map(hash, row_bytes(column.take(rows))))
    if not isinstance(column, Tensor):
        return [hash(tuple(column[row])) for row in rows.tolist()]
    table = column.detach()[torch.from_numpy(rows)].cpu().reshape(len(rows), -1).contiguous()
    plain = table.view(torch.uint8).numpy() if table.shape[1] else np.zeros((len(rows), 1), np.uint8)
    return list(map(hash, plain.view(f"V{plain.shape[1]}").ravel().tolist()))

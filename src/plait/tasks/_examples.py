"""Examples: what a split holds. Anything with a length that can give a batch of chosen ones."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from plait.errors import InputError

#: Named tensors whose first dimension runs over examples.
Batch = dict[str, Tensor]
#: The label of what does not count, as in PyTorch and transformers.
IGNORED = -100


@runtime_checkable
class Examples(Protocol):
    """A split of a data set."""

    def __len__(self) -> int:
        """How many examples there are."""
        ...

    def batch(self, rows: Sequence[int]) -> Batch:
        """The chosen examples as tensors, first dimension over examples, in the order asked for."""
        ...


class Indexed(Protocol):
    """What gives an example for an index, and has a length."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


#: What `as_examples` takes: arrays `(X, y)`, a mapping of columns, a dataset, or examples.
Data = Examples | Mapping[str, Any] | tuple[Any, ...] | Dataset[Any] | Indexed


@dataclass(frozen=True)
class Columns:
    """Examples held as tensors of equal length.

    Args:
        columns: name → `(n, …)` tensor.
        source: for each example, where it came from (a file, a font, a gloss); what splits must not share.
    """

    columns: Mapping[str, Tensor]
    source: Sequence[str] | None = None

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"`{name}` {length}" for name, length in lengths.items())
            raise InputError(
                f"columns of unequal length: {told}", hint="every column needs one row per example"
            )
        if self.source is not None and len(self.source) != len(self):
            raise InputError(f"{len(self.source)} sources for {len(self)} examples")

    def __len__(self) -> int:
        return next((len(column) for column in self.columns.values()), 0)

    def batch(self, rows: Sequence[int]) -> Batch:
        index = torch.as_tensor(np.asarray(rows, dtype=np.int64))
        return {name: column[index] for name, column in self.columns.items()}


@dataclass(frozen=True)
class Ragged:
    """Examples whose sequences have lengths of their own; a batch is padded to its longest.

    Args:
        sequences: name → one sequence of numbers per example; all names of one example have its length.
        columns: name → `(n, …)` tensor of what is not a sequence (a label).
        padding: name → what fills up a row; −100 for `labels` and 0 for others where it is not said.
        source: as for `Columns`.
    """

    sequences: Mapping[str, Sequence[Sequence[int]]]
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    padding: Mapping[str, int] = field(default_factory=dict)
    source: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if not self.sequences:
            hint = "give name → one sequence per example; columns alone are `Columns`"
            raise InputError("ragged examples have no sequences", hint=hint)
        lengths = {name: len(held) for part in (self.sequences, self.columns) for name, held in part.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"`{name}` {length}" for name, length in lengths.items())
            raise InputError(
                f"columns of unequal length: {told}", hint="every column needs one row per example"
            )

    def __len__(self) -> int:
        return len(next(iter(self.sequences.values())))

    def batch(self, rows: Sequence[int]) -> Batch:
        made = {
            name: _padded([sequences[row] for row in rows], filling(self.padding, name))
            for name, sequences in self.sequences.items()
        }
        index = torch.as_tensor(np.asarray(rows, dtype=np.int64))
        return made | {name: column[index] for name, column in self.columns.items()}


def filling(padding: Mapping[str, int], name: str) -> int:
    """What fills up sequences of a column, if `padding` does not say."""
    return padding.get(name, IGNORED if name == "labels" else 0)


def _padded(sequences: Sequence[Sequence[int]], fill: int) -> Tensor:
    longest = max((len(sequence) for sequence in sequences), default=0)
    padded = np.full((len(sequences), longest), fill, dtype=np.int64)
    for row, sequence in enumerate(sequences):
        padded[row, : len(sequence)] = sequence
    return torch.from_numpy(padded)


@dataclass(frozen=True)
class Items:
    """Examples of a PyTorch dataset or a Hugging Face `datasets` object: whatever can be indexed.

    Args:
        data: gives an example for an index, and has a length.
        names: what the parts of an example are called, if it is a tuple.
        prepare: makes named numbers of one example; without it, the example is taken as it is.
        columns: name → `(n, …)` tensor of what is known without making an example (a label).
        source: as for `Columns`.
        origin: a digest of all that examples are made from, besides `columns`, where that is cheaper to look
            at than the examples are.
    """

    data: Any
    names: Sequence[str] = ("input", "label")
    prepare: Callable[[Any], Mapping[str, Any]] | None = None
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    source: Sequence[str] | None = None
    origin: str | None = None

    def __post_init__(self) -> None:
        told = {f"{len(column)} rows of `{name}`": len(column) for name, column in self.columns.items()}
        told |= {} if self.source is None else {f"{len(self.source)} sources": len(self.source)}
        for what, count in told.items():
            if count != len(self):
                raise InputError(f"{what} for {len(self)} examples")

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, rows: Sequence[int]) -> Batch:
        examples = [self._example(int(row)) for row in rows]
        try:
            made = torch.utils.data.default_collate(examples)
        except (RuntimeError, TypeError, KeyError) as error:
            raise InputError(
                f"examples make no batch: {str(error).partition(chr(10))[0]}",
                where=f"examples {', '.join(str(row) for row in rows[:3])}{', …' if len(rows) > 3 else ''}",
                hint="they need the same names, and numbers of the same shapes; `Ragged` fills up sequences",
            ) from error
        index = torch.as_tensor(np.asarray(rows, dtype=np.int64))
        return made | {name: column[index] for name, column in self.columns.items()}

    def _example(self, row: int) -> dict[str, Any]:
        example = self.data[row]
        if self.prepare is not None:
            return dict(self.prepare(example))
        if isinstance(example, Mapping):
            return _numbers(example)
        if isinstance(example, Sequence) and len(example) == len(self.names):
            return dict(zip(self.names, example, strict=True))
        raise InputError(
            f"example {row} is a {type(example).__name__}",
            hint=f"give a mapping of names to numbers, or a tuple of {', '.join(self.names)}",
        )


def _numbers(example: Mapping[str, Any]) -> dict[str, Any]:
    """An example without the texts that a dataset brings beside its numbers; lists as tensors."""
    found = {}
    for name, value in example.items():
        if isinstance(value, list):
            with contextlib.suppress(ValueError, TypeError):  # a list of texts, or of lists unequally long
                found[name] = torch.tensor(value)
        elif not isinstance(value, str):
            found[name] = value
    return found


def as_examples(data: Data, *, names: Sequence[str] = ("input", "label")) -> Examples:
    """Examples from what people have: arrays `(X, y)`, a mapping of columns, a dataset, or examples.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(data, Columns | Ragged | Items):
        return data
    if isinstance(data, Mapping):
        return Columns({str(name): _tensor(column, f"`{name}`") for name, column in data.items()})
    if isinstance(data, tuple) and len(data) == len(names) and not hasattr(data, "_fields"):
        return Columns({n: _tensor(column, f"`{n}`") for n, column in zip(names, data, strict=True)})
    # A Hugging Face dataset has a method `batch` of its own, which is another.
    if isinstance(data, Examples) and not hasattr(data, "column_names"):
        return data
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return Items(data, names)
    raise InputError(
        f"`{type(data).__name__}` holds no examples",
        hint="give arrays (X, y), a mapping of columns, a PyTorch dataset or a Hugging Face dataset",
    )


def _tensor(column: Any, name: str) -> Tensor:
    """A tensor of a column; floating-point numbers in float32, as models have them."""
    if isinstance(column, Tensor):
        return column
    try:
        array = np.asarray(column)
    except ValueError as error:  # NumPy's "inhomogeneous shape"
        hint = "`Ragged` holds sequences of lengths of their own"
        raise InputError(f"column {name} has rows of unequal length", hint=hint) from error
    if array.dtype.kind == "f":
        array = array.astype(np.float32, copy=False)
    if array.dtype.kind not in "fiub":
        raise InputError(f"column {name} is of {array.dtype}, which are no numbers")
    return torch.from_numpy(np.ascontiguousarray(array))


def columns_of(batch: Batch) -> tuple[tuple[str, torch.dtype, int], ...]:
    """What a batch holds, by name: the type of each column and how many dimensions it has."""
    return tuple((name, column.dtype, column.dim()) for name, column in sorted(batch.items()))


def digest(examples: Examples) -> str:
    """A fingerprint of what examples hold: the same for the same examples, whatever holds them."""
    found = hashlib.blake2b(digest_size=16)
    for start in range(0, len(examples), 256):
        rows = range(start, min(start + 256, len(examples)))
        for name, column in sorted(examples.batch(rows).items()):
            found.update(f"{name} {column.dtype} {tuple(column.shape)}".encode())
            found.update(column.contiguous().cpu().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()

"""What a split's examples hold, as a number for each, whatever they lie in and however numbers are stored."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Subset as TorchSubset

from plait.tasks._arrow_rows import in_type, is_plain_integer, kind_of_arrow, row_bytes
from plait.tasks._examples import Columns, Examples, Items, Ragged
from plait.tasks._in_parts import in_memory_columns
from plait.tasks._subset import table_of

_Numbers = NDArray[np.uint64]
#: Bytes, about, that are looked at at a time.
_BLOCK = 4 << 20
#: 2^64 over the golden ratio: multiplied by it, numbers near each other are far apart.
_ODD = np.uint64(0x9E3779B97F4A7C15)
#: What columns are called that number or name examples, and pandas' index.
_ID = re.compile(
    r"(.*[\W_])?(id|idx|index|key|uid|uuid|guid)|__index_level_\d+__|unnamed: \d+", re.IGNORECASE
)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
#: Examples, and numbers of each, that `parts` looks at.
_SOME, _PARTS = 256, 4096


class Contents:
    """A split's columns, and what is found out of them if it is asked for.

    Args:
        examples: of the split.
        label: the column of what models should answer; no part of what they get.
    """

    def __init__(self, examples: Examples, label: str | None) -> None:
        self.examples, self.label = examples, label
        table, rows = table_of(examples)
        data: Any = table.data if isinstance(table, Items) else table
        #: Whether examples are made of what lies there, and may be anything.
        self.made = isinstance(table, Items) and table.prepare is not None
        while isinstance(data, TorchSubset):
            self.made |= type(data) is not TorchSubset
            own = np.asarray(data.indices, dtype=np.int64)
            data, rows = data.dataset, own if rows is None else own[rows]
        if _is_hugging(data):
            self.made |= data.format["type"] == "custom"
            if data._indices is not None:  # its own choice of its table's rows
                own = data._indices.column(0).to_numpy().astype(np.int64)
                rows = own if rows is None else own[rows]
        #: What columns lie in, and the split's rows there; all if None.
        self.data, self.rows = data, rows
        #: Name → tensor, Arrow array or sequences, all rows.
        self.columns = _columns(data, table)
        #: Those that models get.
        self.inputs = {name: column for name, column in self.columns.items() if name != label}
        self._numbers: dict[tuple[str, str], _Numbers] = {}
        self._counted: dict[tuple[tuple[str, str], ...], tuple[_Numbers, NDArray[np.int64]]] = {}

    def __len__(self) -> int:
        return len(self.examples)

    @functools.cached_property
    def ids(self) -> set[str]:
        """Columns that number or name examples: their names say so, and no value is there twice."""
        named = [name for name in self.inputs if _ID.fullmatch(name) and self.may_be_key(name)]
        return {name for name in named if len(self.counted([name])[0]) == len(self)}

    def may_be_key(self, name: str) -> bool:
        """Whether a column holds a whole number or a text for each example, which may stand for others."""
        return kind_of(self.inputs[name]) in (("", "int64"), ("", "text"))

    def apart(self, names: Sequence[str], types: Mapping[str, str]) -> bool:
        """Whether some columns tell at least half of the examples from each other."""
        return bool(names) and 2 * len(self.counted(names, types)[0]) >= len(self)

    def counted(
        self, names: Sequence[str], types: Mapping[str, str] | None = None
    ) -> tuple[_Numbers, NDArray[np.int64]]:
        """Each of `numbers` once, in order, and for how many examples it stands."""
        key = tuple((name, self._type(name, types)) for name in names)
        if key not in self._counted:
            self._counted[key] = np.unique(self.numbers(names, types), return_counts=True)
        return self._counted[key]

    def numbers(self, names: Sequence[str], types: Mapping[str, str] | None = None) -> _Numbers:
        """A number for each example, the same for the same values of some columns.

        Args:
            names: of the columns.
            types: name → torch's name of the type that numbers are taken in; their own where it is not said.
        """
        found = np.zeros(len(self), np.uint64)
        for name in names:
            found = (found ^ self._of(name, self._type(name, types))) * _ODD
            found ^= found >> np.uint64(29)
        return found

    def _type(self, name: str, types: Mapping[str, str] | None) -> str:
        return (types or {}).get(name) or kind_of(self.columns[name])[1]

    def _of(self, name: str, to: str) -> _Numbers:
        if (name, to) not in self._numbers:
            found = _whole_numbers(self.columns[name]) if to == "int64" else None
            if found is None:
                found = self._hashed(self.columns[name], to)
            elif self.rows is not None:
                found = found[self.rows]
            self._numbers[name, to] = found.view(np.uint64)
        return self._numbers[name, to]

    def _hashed(self, column: Any, to: str) -> NDArray[np.int64]:
        """In parts, so that little is held; hashes of rows' bytes are Python's: as good, and fast."""
        found = np.empty(len(self), np.int64)
        size = column[:1].numel() * 8 if isinstance(column, Tensor) else 1 << 10
        block = max(_BLOCK // max(size, 1), 1)
        for start in range(0, len(self), block):
            stop = min(start + block, len(self))
            found[start:stop] = list(map(hash, _bytes(column, self._rows(start, stop), to)))
        return found

    def _rows(self, start: int, stop: int) -> slice | NDArray[np.int64]:
        return slice(start, stop) if self.rows is None else self.rows[start:stop]

    def parts(self, name: str, to: str) -> NDArray[Any]:
        """Numbers of some examples: `(examples, numbers)`; they stand for the words of texts."""
        some = np.unique(np.linspace(0, len(self) - 1, min(len(self), _SOME)).astype(np.int64))
        rows, column = some if self.rows is None else self.rows[some], self.columns[name]
        if isinstance(column, Tensor):
            table = column.detach()[torch.from_numpy(rows)].cpu().reshape(len(rows), -1)
            chosen = np.unique(np.linspace(0, max(table.shape[1] - 1, 0), _PARTS).astype(np.int64))
            return in_type(table[:, torch.from_numpy(chosen)], to) if table.shape[1] else table.numpy()
        values = column.take(rows).to_pylist() if is_arrow(column) else [_listed(column[row]) for row in rows]
        leaves = [list(itertools.islice(_leaves(value), _PARTS)) for value in values]
        codes: dict[Any, int] = {}
        filled = itertools.zip_longest(*leaves, fillvalue=None)  # by place
        found = [[codes.setdefault(leaf, len(codes)) for leaf in place] for place in filled]
        return np.array(found, dtype=np.int64).reshape(-1, len(rows)).T


def _is_hugging(data: Any) -> bool:
    return hasattr(data, "_fingerprint") and hasattr(data, "column_names")


def _columns(data: Any, table: Examples) -> Mapping[str, Any]:
    if isinstance(data, Columns):
        return data.columns
    if isinstance(data, Ragged):
        return {**data.sequences, **data.columns}
    if not isinstance(table, Items):
        return {}
    if _is_hugging(data):
        told = data.format  # columns that a format leaves out are in no example
        names = data.column_names if told["output_all_columns"] else told["columns"]
        return {name: data.data.column(name) for name in names}
    return in_memory_columns(data, table.names) if table.prepare is None else {}


def is_arrow(column: Any) -> bool:
    """Whether a column is one of Arrow's."""
    return hasattr(column, "chunks")


def kind_of(column: Any) -> tuple[str, str]:
    """The shape of a column's values, and torch's name of the type that tells them apart.

    Rows of numbers are `[]`, however many and of however many dimensions, in whatever they lie. Whole numbers
    and truth values are `int64`.
    """
    if is_arrow(column):
        return kind_of_arrow(column.type)
    if not isinstance(column, Tensor):
        return "[]", "int64"
    shape = "[]" if column.dim() > 1 else ""
    if column.is_complex() or (column.is_floating_point() and column.dtype not in _FLOATS):
        return shape, str(column.dtype)
    return shape, str(column.dtype).removeprefix("torch.") if column.is_floating_point() else "int64"


def common(one: str, other: str) -> str | None:
    """The type that numbers of two are compared in, which is what copies were stored in last: the coarser.

    None where they are not to be compared.
    """
    if one == other:
        return one
    width = {"int64": 99, "float64": 64, "float32": 32, "float16": 16, "bfloat16": 16}
    if not {one, other} <= width.keys():
        return None
    return "float32" if width[one] == width[other] else min(one, other, key=width.__getitem__)


def _whole_numbers(column: Any) -> NDArray[np.int64] | None:
    """A column of one whole number for each example, none missing; None for all others."""
    if is_arrow(column):
        held = column.to_numpy() if is_plain_integer(column) else None
    else:
        held = (
            column.cpu().numpy() if isinstance(column, Tensor) and kind_of(column) == ("", "int64") else None
        )
    return None if held is None else held.astype(np.int64, copy=False)


def _bytes(column: Any, rows: slice | NDArray[np.int64], to: str) -> list[Any]:
    """The same bytes (or texts) for the same rows."""
    if is_arrow(column):
        held = column[rows] if isinstance(rows, slice) else column.take(rows)
        return held.to_pylist() if kind_of(column) == ("", "text") else row_bytes(held, to)
    if not isinstance(column, Tensor):
        numbers = range(*rows.indices(len(column))) if isinstance(rows, slice) else rows.tolist()
        return [_sequence(_listed(column[row]), to) for row in numbers]
    table = column.detach()[rows if isinstance(rows, slice) else torch.from_numpy(rows)].cpu()
    table = table.reshape(len(table), -1)
    numbers = in_type(table, to)
    if not numbers.shape[1]:
        return [b""] * len(table)
    return numbers.view(f"V{numbers.shape[1] * numbers.itemsize}").ravel().tolist()


def _sequence(sequence: Any, to: str) -> bytes:
    """Whole numbers, as `Ragged` gives them to models."""
    try:
        held = np.array(sequence).astype(np.int64)
    except (ValueError, TypeError, OverflowError):  # no numbers, as is told when a batch is made of them
        return repr(sequence).encode()
    return (held if to == "int64" else in_type(torch.from_numpy(held), to)).tobytes()


def _listed(sequence: Any) -> Any:
    """Whole numbers of a list, an array or a tensor."""
    return sequence.tolist() if hasattr(sequence, "tolist") else sequence


def _leaves(value: Any) -> Iterator[Any]:
    """Words of a text and numbers of a list, of any depth."""
    if isinstance(value, str):
        yield from value.split()
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part)
    else:
        yield repr(value)

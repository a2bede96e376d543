"""What a split's examples hold, as a number for each, whatever they lie in and however numbers are stored."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Subset as TorchSubset

from plait.tasks._arrow_rows import is_plain_integer, kind_of_arrow, row_bytes
from plait.tasks._examples import Columns, Examples, Items, Ragged
from plait.tasks._subset import table_of

_Numbers = NDArray[np.uint64]
_BLOCK = 4096
#: 2^64 over the golden ratio: multiplied by it, numbers near each other are far apart.
_ODD = np.uint64(0x9E3779B97F4A7C15)
#: What columns are called that number or name examples, and pandas' index.
_ID = re.compile(
    r"(.*[\W_])?(id|idx|index|key|uid|uuid|guid)|__index_level_\d+__|unnamed: \d+", re.IGNORECASE
)
_FLOATS = {16: torch.float16, 32: torch.float32, 64: torch.float64}


class Contents:
    """A split's columns, and what is found out of them if it is asked for.

    Args:
        examples: of the split.
        label: the column that is no part of what a model gets.
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
        held = _columns(data, table)
        #: Name → tensor, Arrow array or sequences of what models get, all rows.
        self.inputs = {name: column for name, column in held.items() if name != label}
        self._numbers: dict[tuple[str, int], _Numbers] = {}
        self._counted: dict[tuple[tuple[str, int], ...], tuple[_Numbers, NDArray[np.int64]]] = {}

    def __len__(self) -> int:
        return len(self.examples)

    @functools.cached_property
    def ids(self) -> set[str]:
        """Columns that number or name examples: their names say so, and no value is there twice."""
        named = [name for name in self.inputs if _ID.fullmatch(name) and self.may_be_key(name)]
        return {name for name in named if len(self.counted([name])[0]) == len(self)}

    def may_be_key(self, name: str) -> bool:
        """Whether a column holds a whole number or a text for each example, which may stand for others."""
        column = self.inputs[name]
        if isinstance(column, Tensor):
            return column.dim() == 1 and kind_of(column)[0].startswith("int")
        return is_arrow(column) and kind_of(column)[0] in ("int", "text")

    def apart(self, names: Sequence[str], bits: Mapping[str, int]) -> bool:
        """Whether some columns tell at least half of the examples from each other."""
        return bool(names) and 2 * len(self.counted(names, bits)[0]) >= len(self)

    def counted(
        self, names: Sequence[str], bits: Mapping[str, int] | None = None
    ) -> tuple[_Numbers, NDArray[np.int64]]:
        """Each of `numbers` once, in order, and for how many examples it stands."""
        key = tuple((name, (bits or {}).get(name, 0)) for name in names)
        if key not in self._counted:
            self._counted[key] = np.unique(self.numbers(names, bits), return_counts=True)
        return self._counted[key]

    def numbers(self, names: Sequence[str], bits: Mapping[str, int] | None = None) -> _Numbers:
        """A number for each example, the same for the same values of some columns.

        Args:
            names: of the columns.
            bits: name → bits of floating-point numbers; whole ones are taken in 64 then. As they are if 0.
        """
        found = np.zeros(len(self), np.uint64)
        for name in names:
            found = (found ^ self._of(name, (bits or {}).get(name, 0))) * _ODD
            found ^= found >> np.uint64(29)
        return found

    def _of(self, name: str, bits: int) -> _Numbers:
        if (name, bits) not in self._numbers:
            found = _whole_numbers(self.inputs[name])
            if found is None:
                found = self._hashed(self.inputs[name], bits)
            elif self.rows is not None:
                found = found[self.rows]
            self._numbers[name, bits] = found.view(np.uint64)
        return self._numbers[name, bits]

    def _hashed(self, column: Any, bits: int) -> NDArray[np.int64]:
        """In parts, as bytes of rows are Python's: hashes of them are as good, and fast."""
        found = np.empty(len(self), np.int64)
        for start in range(0, len(self), _BLOCK):
            stop = min(start + _BLOCK, len(self))
            rows = np.arange(start, stop) if self.rows is None else self.rows[start:stop]
            found[start:stop] = _hashes(column, rows, bits)
        return found

    def size(self, names: Sequence[str]) -> int:
        """Bytes of some columns; sequences are taken for what their first ones are."""
        total = 0
        for name in names:
            column = self.inputs[name]
            if isinstance(column, Tensor):
                total += len(self) * column.element_size() * int(np.prod(column.shape[1:]))
            elif is_arrow(column):
                total += len(self) * column.nbytes // max(len(column), 1)
            else:
                total += len(self) * 8 * max((len(sequence) for sequence in column[:64]), default=0)
        return total


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
    tensors = getattr(data, "tensors", ()) if table.prepare is None else ()
    return dict(zip(table.names, tensors, strict=False))


def is_arrow(column: Any) -> bool:
    """Whether a column is one of Arrow's."""
    return hasattr(column, "chunks")


def kind_of(column: Any) -> tuple[str, int]:
    """What values a column has, and in how many bits: `int`, `float` and `text` stand for all widths."""
    if is_arrow(column):
        return kind_of_arrow(column.type)
    if not isinstance(column, Tensor):
        return "sequences", 0
    shape, bits = tuple(column.shape[1:]), column.element_size() * 8
    if column.is_floating_point() and column.dtype == _FLOATS.get(bits):
        return f"float{shape}", bits
    whole = not column.is_floating_point() and not column.is_complex() and column.dtype != torch.bool
    return (f"int{shape}" if whole else f"{column.dtype}{shape}"), bits


def stored(column: Any) -> Any:
    """The type that values of a column are stored in; None for sequences."""
    return column.type if is_arrow(column) else getattr(column, "dtype", None)


def _whole_numbers(column: Any) -> NDArray[np.int64] | None:
    """A column of one whole number for each example, none missing; None for all others."""
    if is_arrow(column):
        held = column.to_numpy() if is_plain_integer(column) else None
    else:
        held = column.cpu().numpy() if isinstance(column, Tensor) and kind_of(column)[0] == "int()" else None
    return None if held is None else held.astype(np.int64, copy=False)


def _hashes(column: Any, rows: NDArray[np.int64], bits: int) -> list[int]:
    if is_arrow(column):
        held = column.take(rows)
        if kind_of(column)[0] == "text":
            return list(map(hash, held.to_pylist()))
        return list(map(hash, row_bytes(held, bits)))
    if not isinstance(column, Tensor):
        return [hash(tuple(_plain(column[row]))) for row in rows.tolist()]
    table = column.detach()[torch.from_numpy(rows)].cpu().reshape(len(rows), -1).contiguous()
    if bits:
        table = table.to(_FLOATS[bits] if table.is_floating_point() else torch.int64)
    plain = table.view(torch.uint8).numpy() if table.shape[1] else np.zeros((len(rows), 1), np.uint8)
    return list(map(hash, plain.view(f"V{plain.shape[1]}").ravel().tolist()))


def _plain(sequence: Any) -> Any:
    """Numbers of an array or tensor, which are the same object for no two of them."""
    return sequence.tolist() if hasattr(sequence, "tolist") else sequence

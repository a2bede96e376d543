"""Where examples lie: which rows of which memory or data set, however they are wrapped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import data as torch_data

from plait.tasks._examples import Columns, Examples, Items
from plait.tasks._subset import table_of

_Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Place:
    """Two places with one root and a row in common have an example in common.

    Args:
        root: what tells a memory or data set from others, as long as it lives.
        rows: numbers of the examples in it.
    """

    root: Any
    rows: _Rows


def place_of(examples: Examples, label: str | None) -> Place:
    """The place of examples.

    Args:
        examples: of a split.
        label: the column that says nothing of where examples lie.
    """
    examples, rows = table_of(examples)
    if isinstance(examples, Columns):
        # The largest column, as small ones (a weight of 1) may be one tensor for all splits.
        inputs = [column for name, column in sorted(examples.columns.items()) if name != label]
        largest = max(inputs, key=lambda column: column[:1].numel(), default=None)
        return _whole(examples, rows) if largest is None else _in_memory(largest, rows)
    if isinstance(examples, Items) and isinstance(examples.data, range):
        # Such rows are numbers of examples that `prepare` makes.
        return Place(("made by", id(examples.prepare)), _taken(examples.data, rows))
    return _in_data(examples.data, rows) if isinstance(examples, Items) else _whole(examples, rows)


def _in_data(data: Any, rows: _Rows | None) -> Place:
    if isinstance(data, torch_data.Subset):
        return _in_data(data.dataset, _taken(data.indices, rows))
    if type(data) is torch_data.TensorDataset and data.tensors:
        return _in_memory(data.tensors[0], rows)
    found = _in_arrow(data) if hasattr(data, "_fingerprint") and hasattr(data, "column_names") else None
    return _whole(data, rows) if found is None else Place("arrow", _taken(found, rows))


def _in_memory(tensor: Tensor, rows: _Rows | None) -> Place:
    """By addresses, as slices of one array are other objects."""
    size = tensor[:1].numel() * tensor.element_size()
    if not size or not tensor.is_contiguous() or not tensor.data_ptr():
        return _whole(tensor, rows)
    first, rest = divmod(tensor.data_ptr(), size)
    numbers = np.arange(len(tensor)) if rows is None else rows
    return Place(("memory", str(tensor.device), size, rest), first + numbers)


def _in_arrow(data: Any) -> _Rows | None:
    """Rows of a Hugging Face dataset by where the first column's buffers lie: `select` and slices share them.

    A buffer has a bit at least for each value, so that addresses in bits, plus a value's number, are unique.
    """
    columns = data.data.columns
    keys = []
    for chunk in columns[0].chunks if columns else ():
        buffer = next((buffer for buffer in chunk.buffers() if buffer is not None), None)
        if buffer is None:
            return None
        keys.append(buffer.address * 8 + chunk.offset + np.arange(len(chunk)))
    if not keys:
        return None
    indices = data._indices
    return np.concatenate(keys) if indices is None else np.concatenate(keys)[indices.column(0).to_numpy()]


def _whole(data: Any, rows: _Rows | None) -> Place:
    return Place(("object", id(data)), np.arange(len(data)) if rows is None else rows)


def _taken(numbers: Any, rows: _Rows | None) -> _Rows:
    found = np.asarray(numbers, dtype=np.int64)
    return found if rows is None else found[rows]

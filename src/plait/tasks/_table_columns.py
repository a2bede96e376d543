"""Columns of a table as a task takes them: features, labels, texts; what is none is told with its line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plait.errors import InputError
from plait.tasks._tables import Table

_FILL = "fill or drop such rows"


def features(table: Table, names: Sequence[str]) -> Tensor:
    """Columns of numbers side by side, `(n, features)`; one column of arrays as it is, `(n, …)`.

    Raises:
        InputError: a column is not there, or a value is missing or no number.
    """
    columns = [_numbers(table, name, "`input` names the columns that are features") for name in names]
    if len(columns) == 1 and columns[0].ndim > 1:
        whole = columns[0].astype(np.float32) if columns[0].dtype.kind == "f" else columns[0]
        return torch.from_numpy(np.ascontiguousarray(whole))
    parts = [
        column.reshape(len(column), math.prod(column.shape[1:])).astype(np.float32) for column in columns
    ]
    return torch.from_numpy(np.concatenate(parts, axis=1))


def classes(table: Table, name: str, count: int) -> Tensor:
    """Labels that are classes, `(n,)`.

    Raises:
        InputError: the column is not there, or a label is missing or not one of 0 to `count` - 1.
    """
    hint = f"classes are whole numbers from 0 to {count - 1}, as the task's `classes` says"
    values = _numbers(table, name, hint).astype(np.float64)
    if values.ndim != 1:
        raise InputError(f"`{name}` holds arrays, no classes", where=table.where, hint=hint)
    wrong = np.flatnonzero((values != np.floor(values)) | (values < 0) | (values >= count))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(f"`{name}` is {values[row]:g}, no class", where=table.place(row), hint=hint)
    return torch.from_numpy(values.astype(np.int64))


def goals(table: Table, name: str) -> Tensor:
    """Labels that are numbers, `(n,)` or `(n, k)`.

    Raises:
        InputError: the column is not there, or a label is missing or no number.
    """
    return torch.from_numpy(_numbers(table, name, "give numbers").astype(np.float32))


def texts(table: Table, name: str) -> list[str]:
    """A column of texts.

    Raises:
        InputError: the column is not there, or a value is missing or no text.
    """
    values = list(table.column(name))
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise _wrong(table, name, row, value, "no text", "give texts")
    return values


def _numbers(table: Table, name: str, hint: str) -> NDArray[Any]:
    values = table.column(name)
    array = values if isinstance(values, np.ndarray) else None
    if array is None:
        try:
            array = np.asarray(list(values))
            array = array if array.dtype.kind in "biuf" else array.astype(np.float64)
        except (ValueError, TypeError):
            raise _first_wrong(table, name, values, hint) from None
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise _first_wrong(table, name, values, hint)
    return array


def _first_wrong(table: Table, name: str, values: Any, hint: str) -> InputError:
    """What is wrong with the first value that is no number, or of another shape than those before it."""
    shape = None
    for row, value in enumerate(values):
        try:
            found = np.asarray(value, dtype=np.float64)
        except (ValueError, TypeError):
            return _wrong(table, name, row, value, "no number", hint)
        if not np.isfinite(found).all():
            return _wrong(table, name, row, value, "no finite number", _FILL)
        if shape not in (None, found.shape):
            what = f"`{name}` has the shape {found.shape}, and {shape} before"
            return InputError(what, where=table.place(row))
        shape = found.shape
    return InputError(f"`{name}` holds no numbers", where=table.where)


def _wrong(table: Table, name: str, row: int, value: Any, kind: str, hint: str) -> InputError:
    missing = value is None or (isinstance(value, str) and not value.strip())
    if missing or (isinstance(value, float) and np.isnan(value)):
        return InputError(f"`{name}` is missing", where=table.place(row), hint=_FILL)
    told = repr(value) if len(repr(value)) < 40 else f"{repr(value)[:40]}…"
    return InputError(f"`{name}` is {told}, {kind}", where=table.place(row), hint=hint)

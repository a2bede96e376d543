"""Rows of Arrow tables as bytes, so that equal rows are found without making examples of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np


def row_bytes(array: Any) -> list[bytes]:
    """Each value of an Arrow array as bytes, equal for equal values; lists, of any depth, with their lengths.

    Numbers are their bits, but their texts in an array (or list) where some are missing.
    """
    import pyarrow as pa

    if isinstance(array, pa.ChunkedArray):
        return [row for chunk in array.chunks for row in row_bytes(chunk)]
    if isinstance(array, pa.ExtensionArray):
        return row_bytes(array.storage)
    kind = array.type
    if array.null_count == 0 and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return _cut(array.to_numpy(zero_copy_only=False), np.arange(len(array) + 1))
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if array.null_count == 0 and lists:
        return _lists(array)
    return [repr(value).encode() for value in array.to_pylist()]


def _lists(array: Any) -> list[bytes]:
    import pyarrow as pa

    inner, lengths = array.flatten(), array.value_lengths().to_numpy(zero_copy_only=False)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    plain = pa.types.is_integer(inner.type) or pa.types.is_floating(inner.type)
    if inner.null_count == 0 and plain:
        return _cut(inner.to_numpy(zero_copy_only=False), ends)
    rows = row_bytes(inner)
    return [b"%d;" % (stop - start) + b"".join(_told(rows[start:stop])) for start, stop in pairwise(ends)]


def _told(rows: Sequence[bytes]) -> list[bytes]:
    return [b"%d:" % len(row) + row for row in rows]


def _cut(numbers: np.ndarray[Any, Any], ends: np.ndarray[Any, Any]) -> list[bytes]:
    """The bytes of runs of numbers."""
    whole, size = np.ascontiguousarray(numbers).tobytes(), numbers.itemsize
    return [whole[start * size : stop * size] for start, stop in pairwise(ends.tolist())]

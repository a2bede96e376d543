"""Rows of Arrow tables as bytes, so that equal rows are found without making examples of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np


def kind_of_arrow(kind: Any) -> tuple[str, int]:
    """What values an Arrow type has, and in how many bits; all kinds of lists, and of texts, are alike."""
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        return kind_of_arrow(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return kind_of_arrow(kind.value_type)
    if _is_list(kind):
        inner, bits = kind_of_arrow(kind.value_type)
        return f"[{inner}]", bits
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return ("int" if pa.types.is_integer(kind) else "float"), kind.bit_width
    if str(kind).removeprefix("large_").removesuffix("_view") in ("string", "binary"):
        return ("text" if "string" in str(kind) else "binary"), 0
    return str(kind), 0


def is_plain_integer(array: Any) -> bool:
    """Whether an Arrow array holds a whole number for each row, none missing."""
    import pyarrow as pa

    return pa.types.is_integer(array.type) and array.null_count == 0


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def row_bytes(array: Any, bits: int = 0) -> list[bytes]:
    """Each value of an Arrow array as bytes, equal for equal values; lists, of any depth, with their lengths.

    Numbers are their bits, but their texts in an array (or list) where some are missing.

    Args:
        array: one of Arrow's, in chunks or whole.
        bits: of floating-point numbers, whole ones are taken in 64 then; as they are if 0.
    """
    import pyarrow as pa

    if isinstance(array, pa.ChunkedArray):
        return [row for chunk in array.chunks for row in row_bytes(chunk, bits)]
    if isinstance(array, pa.ExtensionArray):
        return row_bytes(array.storage, bits)
    kind = array.type
    if array.null_count == 0 and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return _cut(_in_bits(array.to_numpy(zero_copy_only=False), bits), np.arange(len(array) + 1))
    if array.null_count == 0 and _is_list(kind):
        return _lists(array, bits)
    return [repr(value).encode() for value in array.to_pylist()]


def _lists(array: Any, bits: int) -> list[bytes]:
    import pyarrow as pa

    inner, lengths = array.flatten(), array.value_lengths().to_numpy(zero_copy_only=False)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    plain = pa.types.is_integer(inner.type) or pa.types.is_floating(inner.type)
    if inner.null_count == 0 and plain:
        return _cut(_in_bits(inner.to_numpy(zero_copy_only=False), bits), ends)
    rows = row_bytes(inner, bits)
    return [b"%d;" % (stop - start) + b"".join(_told(rows[start:stop])) for start, stop in pairwise(ends)]


def _told(rows: Sequence[bytes]) -> list[bytes]:
    return [b"%d:" % len(row) + row for row in rows]


def _in_bits(numbers: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    if not bits:
        return numbers
    return numbers.astype(f"f{bits // 8}" if numbers.dtype.kind == "f" else np.int64)


def _cut(numbers: np.ndarray[Any, Any], ends: np.ndarray[Any, Any]) -> list[bytes]:
    """The bytes of runs of numbers."""
    whole, size = np.ascontiguousarray(numbers).tobytes(), numbers.itemsize
    return [whole[start * size : stop * size] for start, stop in pairwise(ends.tolist())]

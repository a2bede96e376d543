"""Rows of Arrow tables as bytes, so that equal rows are found without making examples of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

#: Arrow's numbers → torch's name of the type; whole ones of any width, and truth values, are `int64`.
_FLOATS = {16: "float16", 32: "float32", 64: "float64"}


def kind_of_arrow(kind: Any) -> tuple[str, str]:
    """How values of an Arrow type are nested (`[]` in each list) and what they are, by torch's name."""
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        return kind_of_arrow(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return kind_of_arrow(kind.value_type)
    if _is_list(kind):
        inner, held = kind_of_arrow(kind.value_type)
        return f"[{inner}]", held
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "", "int64"
    if pa.types.is_floating(kind):
        return "", _FLOATS[kind.bit_width]
    if str(kind).removeprefix("large_").removesuffix("_view") in ("string", "binary"):
        return "", "text" if "string" in str(kind) else "binary"
    return "", str(kind)


def is_plain_integer(array: Any) -> bool:
    """Whether an Arrow array holds a whole number for each row, none missing."""
    import pyarrow as pa

    return pa.types.is_integer(array.type) and array.null_count == 0


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def row_bytes(array: Any, to: str | None = None) -> list[bytes]:
    """Each value of an Arrow array as bytes, equal for equal values; lists, of any depth, with their lengths.

    Args:
        array: one of Arrow's, in chunks or whole.
        to: torch's name of the type that numbers are compared in; their own if None.
    """
    import pyarrow as pa

    if isinstance(array, pa.ChunkedArray):
        return [row for chunk in array.chunks for row in row_bytes(chunk, to)]
    if isinstance(array, pa.ExtensionArray):
        return row_bytes(array.storage, to)
    kind = array.type
    if _is_number(kind):
        return _without(_cut(_plain(array, to), np.arange(len(array) + 1)), array)
    if _is_list(kind):
        return _without(_lists(array, to), array)
    return [repr(value).encode() for value in array.to_pylist()]


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _without(rows: list[bytes], array: Any) -> list[bytes]:
    """Rows, of which missing ones are told apart from all others: no number is a byte long."""
    if array.null_count:
        rows = [
            b"-" if missing else row for row, missing in zip(rows, array.is_null().to_pylist(), strict=True)
        ]
    return rows


def _lists(array: Any, to: str | None) -> list[bytes]:
    inner = array.flatten()  # without those of missing lists
    lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    if _is_number(inner.type):
        rows, missing = _cut(_plain(inner, to), ends), np.flatnonzero(inner.is_null())
        for row in np.unique(np.searchsorted(ends, missing, side="right") - 1):
            rows[row] = b"-" + repr(inner[ends[row] : ends[row + 1]].to_pylist()).encode()
        return rows
    rows = row_bytes(inner, to)
    return [b"%d;" % (stop - start) + b"".join(_told(rows[start:stop])) for start, stop in pairwise(ends)]


def _told(rows: Sequence[bytes]) -> list[bytes]:
    return [b"%d:" % len(row) + row for row in rows]


def _plain(array: Any, to: str | None) -> np.ndarray[Any, Any]:
    """Numbers of an array, any for missing ones."""
    import pyarrow as pa

    held = array.cast(pa.int8()) if pa.types.is_boolean(array.type) else array
    if held.null_count:
        held = (held.cast(pa.float32()) if pa.types.is_float16(held.type) else held).fill_null(0)
    numbers = held.to_numpy(zero_copy_only=False)
    return in_type(torch.from_numpy(np.array(numbers)), to or kind_of_arrow(array.type)[1])


def in_type(numbers: torch.Tensor, to: str) -> np.ndarray[Any, Any]:
    """Numbers of a type, with one zero: equal ones have equal bits."""
    held = numbers.to(getattr(torch, to.removeprefix("torch.")))
    if not held.is_floating_point():
        return held.contiguous().numpy()
    if held.element_size() > 1:
        held = held + 0.0
    bits = {torch.bfloat16: torch.int16} if held.element_size() > 1 else {held.dtype: torch.uint8}
    return held.contiguous().view(bits.get(held.dtype, held.dtype)).numpy()


def _cut(numbers: np.ndarray[Any, Any], ends: np.ndarray[Any, Any]) -> list[bytes]:
    """The bytes of runs of numbers."""
    whole, size = np.ascontiguousarray(numbers).tobytes(), numbers.itemsize
    return [whole[start * size : stop * size] for start, stop in pairwise(ends.tolist())]

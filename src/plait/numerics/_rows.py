"""Order within rows, compiled: each row's thresholds and ranks by counting digits, never by comparing.

Magnitudes come as bits (non-negative floats order like their bits). Digits of 11, 11 and 10 bits: the bins
of the first hold few elements around a threshold, so the rest of the search looks at those alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_FLAGS: dict[str, Any] = {"cache": True, "nogil": True, "boundscheck": False, "error_model": "numpy"}
_BINS = 2048


@njit(**_FLAGS)
def row_nonzeros(bits: Any) -> Any:
    """How many elements of each row are not zero; `bits` is `(rows, cols)` uint32."""
    found = np.empty(bits.shape[0], np.int64)
    for row in range(bits.shape[0]):
        part, count = bits[row], np.int32(0)
        for i in range(part.shape[0]):
            count += np.int32(part[i] != 0)
        found[row] = count
    return found


@njit(**_FLAGS)
def _tally(part: Any, shift: Any, first: Any, second: Any) -> None:
    """Count digits; neighbours count into different tables."""
    mask, one = np.uint32(_BINS - 1), np.uint32(1)
    size = part.shape[0]
    for i in range(0, size - 1, 2):
        first[(part[i] >> shift) & mask] += one
        second[(part[i + 1] >> shift) & mask] += one
    if size % 2:
        first[(part[size - 1] >> shift) & mask] += one


@njit(**_FLAGS)
def row_select(bits: Any, ranks: Any, exact: bool, values: Any, cuts: Any) -> None:
    """The k-th largest of each row and the index that cuts its equals.

    Args:
        bits: magnitudes' bits, `(rows, cols)` uint32.
        ranks: k, `(statistics, rows)` int64; k ≤ 0 finds infinity.
        exact: cut among equals behind the k-th; else all of them belong.
        values: takes the thresholds, `(statistics, rows)` float32.
        cuts: takes the indices, `(statistics, rows)` int64.
    """
    rows, cols = bits.shape
    first, second = np.empty(_BINS, np.uint32), np.empty(_BINS, np.uint32)
    kept, index = np.empty(cols + 1, np.uint32), np.empty(cols + 1, np.int32)
    bound = np.empty(1, np.uint32)
    for row in range(rows):
        part = bits[row]
        first[:] = 0
        second[:] = 0
        _tally(part, np.uint32(20), first, second)
        for s in range(ranks.shape[0]):
            rank = min(ranks[s, row], cols)
            if rank <= 0:
                values[s, row], cuts[s, row] = np.inf, 0
                continue
            digit, above = _BINS - 1, 0
            while above + first[digit] + second[digit] < rank:
                above += first[digit] + second[digit]
                digit -= 1
            rank -= above
            wanted, size = np.uint32(digit), 0
            for i in range(cols):
                kept[size], index[size] = part[i], i
                size += (part[i] >> np.uint32(20)) == wanted
            bound[0], place = _finish(kept, index, size, rank)
            values[s, row] = bound.view(np.float32)[0]
            cuts[s, row] = place + 1 if exact else cols


@njit(**_FLAGS)
def _finish(kept: Any, index: Any, size: int, rank: int) -> Any:
    """The rank-th largest of a few: its bits, and its index (equals in the order of theirs)."""
    # Digits of ten bits from here on; small sets are settled by comparing.
    shift = np.uint32(10)
    while size > 24:
        counts = np.zeros(1024, np.int32)
        mask = np.uint32(1023)
        for i in range(size):
            counts[(kept[i] >> shift) & mask] += 1
        digit, above = 1023, 0
        while above + counts[digit] < rank:
            above += counts[digit]
            digit -= 1
        rank -= above
        wanted, found = np.uint32(digit), 0
        for i in range(size):
            value, place = kept[i], index[i]
            kept[found], index[found] = value, place
            found += ((value >> shift) & mask) == wanted
        size = found
        if shift == 0:
            return kept[0], index[rank - 1]
        shift = np.uint32(0)
    for i in range(size):
        before = 0
        for j in range(size):
            before += (kept[j] > kept[i]) or (kept[j] == kept[i] and j < i)
        if before == rank - 1:
            return kept[i], index[i]
    return kept[0], index[0]


@njit(**_FLAGS)
def row_places(bits: Any, out: Any) -> None:
    """Each element's place in its row, ascending from 0 to 1, ties by index; 0.5 in a row of one.

    Args:
        bits: magnitudes' bits, `(rows, cols)` uint32.
        out: takes the places, `(rows, cols)` float32.
    """
    rows, cols = bits.shape
    if cols == 1:
        out[:] = np.float32(0.5)
        return
    keys, other = np.empty(cols, np.uint64), np.empty(cols, np.uint64)
    counts = np.empty((3, _BINS), np.int32)
    span = np.float32(cols - 1)
    for row in range(rows):
        part, places = bits[row], out[row]
        counts[:] = 0
        for i in range(cols):
            value = part[i]
            keys[i] = (np.uint64(value) << np.uint64(32)) | np.uint64(i)
            counts[0, value & np.uint32(2047)] += 1
            counts[1, (value >> np.uint32(11)) & np.uint32(2047)] += 1
            counts[2, value >> np.uint32(22)] += 1
        for digit in range(3):
            _scatter(keys, other, counts[digit], np.uint64(32 + 11 * digit))
            keys, other = other, keys
        for place in range(cols):
            places[keys[place] & np.uint64(0xFFFFFFFF)] = np.float32(place) / span


@njit(**_FLAGS)
def _scatter(keys: Any, other: Any, counts: Any, shift: Any) -> None:
    """One pass of a stable radix sort: keys in order of one digit."""
    mask, total = np.uint64(2047), np.int32(0)
    for digit in range(_BINS):
        counts[digit], total = total, total + counts[digit]
    for i in range(keys.shape[0]):
        digit = (keys[i] >> shift) & mask
        other[counts[digit]] = keys[i]
        counts[digit] += 1

"""Order within rows, compiled: each row's thresholds and ranks by counting digits.

Magnitudes come as bits (non-negative floats order like their bits). A row's leading digits are counted; the
few elements in the bin around a threshold are picked out and searched on their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from plait.numerics._masks import FLAGS, LANES, cut_of, largest_of, take

_HIGH = np.uint32(20)
_BINS = 2048


@njit(**FLAGS)
def row_nonzeros(bits: Any) -> Any:
    """How many elements of each row are not zero; `bits` is `(rows, cols)` uint32."""
    found = np.empty(bits.shape[0], np.int64)
    for row in range(bits.shape[0]):
        part, count = bits[row], np.int32(0)
        for i in range(part.shape[0]):
            count += np.int32(part[i] != 0)
        found[row] = count
    return found


@njit(**FLAGS)
def _tally(part: Any, first: Any, second: Any) -> Any:
    """Count leading digits, neighbours into different tables; the largest digit."""
    one, largest = np.uint32(1), np.uint32(0)
    first[:] = 0
    second[:] = 0
    for i in range(part.shape[0]):
        largest = max(largest, part[i])
    for i in range(0, part.shape[0] - 1, 2):
        first[part[i] >> _HIGH] += one
        second[part[i + 1] >> _HIGH] += one
    if part.shape[0] % 2:
        first[part[part.shape[0] - 1] >> _HIGH] += one
    return np.int64(largest >> _HIGH)


@njit(**FLAGS)
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
    index, few = np.empty(cols + LANES, np.uint32), np.empty(cols + LANES, np.uint32)
    other = np.empty(cols, np.uint32)
    bound = np.empty(1, np.uint32)
    for row in range(rows):
        part = bits[row]
        start = _tally(part, first, second)
        for s in range(ranks.shape[0]):
            rank = min(ranks[s, row], cols)
            if rank <= 0:
                values[s, row], cuts[s, row] = np.inf, 0
                continue
            digit = start
            while first[digit] + second[digit] < rank:
                rank -= first[digit] + second[digit]
                digit -= 1
            size = take(part, cols, np.uint32(digit) << _HIGH, np.uint32(1) << _HIGH, 0, few, index, 0)
            other[:size] = few[:size]
            bound[0] = largest_of(other, size, rank)
            values[s, row], cuts[s, row] = bound.view(np.float32)[0], cols
            if exact:
                cuts[s, row] = cut_of(few, index, size, rank, bound[0])


@njit(**FLAGS)
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
    counts = np.empty((4, 256), np.int64)
    low = np.uint32(255)
    span = np.float32(cols - 1)
    for row in range(rows):
        part, places = bits[row], out[row]
        counts[:] = 0
        c0, c1, c2, c3 = counts[0], counts[1], counts[2], counts[3]
        for i in range(cols):
            value = part[i]
            keys[i] = (np.uint64(value) << np.uint64(32)) | np.uint64(i)
            c0[value & low] += 1
            c1[(value >> np.uint32(8)) & low] += 1
            c2[(value >> np.uint32(16)) & low] += 1
            c3[value >> np.uint32(24)] += 1
        for digit in range(4):
            shift = np.uint64(32 + 8 * digit)
            if counts[digit, (keys[0] >> shift) & np.uint64(255)] == cols:
                continue
            _scatter(keys, other, counts[digit], shift)
            keys, other = other, keys
        for place in range(cols):
            places[keys[place] & np.uint64(0xFFFFFFFF)] = np.float32(place) / span


@njit(**FLAGS)
def _scatter(keys: Any, other: Any, counts: Any, shift: Any) -> None:
    """One pass of a stable radix sort: keys in order of one digit."""
    total = np.int64(0)
    for digit in range(counts.shape[0]):
        counts[digit], total = total, total + counts[digit]
    for i in range(keys.shape[0]):
        key = keys[i]
        digit = (key >> shift) & np.uint64(255)
        place = counts[digit]
        other[place] = key
        counts[digit] = place + 1

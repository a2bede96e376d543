"""Order within rows, compiled: each row's thresholds and ranks by counting digits.

Magnitudes come as bits (non-negative floats order like their bits). A row's leading digits are counted; the
few elements in the bin around a threshold are picked out and searched on their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_FLAGS: dict[str, Any] = {"cache": True, "nogil": True, "boundscheck": False, "error_model": "numpy"}
_HIGH = np.uint32(20)
_BINS = 2048
_LANES = 16


@intrinsic
def _equal16(typing_context: Any, values: Any, start: Any, wanted: Any) -> Any:
    """Which of 16 values from `start` on have these leading 11 bits: a mask, one bit for each."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i32 = ir.IntType(32)
        vector = ir.VectorType(i32, _LANES)
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        place = builder.bitcast(builder.gep(data, [args[1]]), vector.as_pointer())
        found = builder.load(place, align=4)
        shift = ir.Constant(vector, [ir.Constant(i32, int(_HIGH))] * _LANES)
        same = builder.icmp_unsigned("==", builder.lshr(found, shift), _splat(builder, args[2], vector))
        return builder.zext(builder.bitcast(same, ir.IntType(_LANES)), i32)

    return types.uint32(values, types.int64, types.uint32), build


def _splat(builder: Any, value: Any, vector: Any) -> Any:
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [ir.Constant(ir.IntType(32), 0)] * _LANES)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)


@intrinsic
def _lowest(typing_context: Any, mask: Any) -> Any:
    """The index of the lowest bit that is set."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.zext(builder.cttz(args[0], cgutils.true_bit), ir.IntType(64))

    return types.int64(types.uint32), build


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


@njit(**_FLAGS)
def _pick(part: Any, wanted: Any, index: Any) -> int:
    """The indices of the elements in one bin, ascending; how many."""
    size, whole = 0, part.shape[0] // _LANES * _LANES
    for i in range(0, whole, _LANES):
        mask = _equal16(part, i, wanted)
        while mask:
            index[size] = i + _lowest(mask)
            size += 1
            mask &= mask - np.uint32(1)
    for i in range(whole, part.shape[0]):
        index[size] = i
        size += np.int64((part[i] >> _HIGH) == wanted)
    return size


@njit(**_FLAGS)
def _largest(values: Any, size: int, rank: int) -> Any:
    """The rank-th largest of a few values, which are reordered."""
    step = np.uint32(2654435761)
    while True:
        # Any pivot will do; one that input cannot foresee keeps crafted rows from being slow.
        step = step * np.uint32(1664525) + np.uint32(1013904223)
        pivot = values[np.int64(step >> np.uint32(8)) % size]
        above, equal = np.int32(0), np.int32(0)
        for i in range(size):
            above += np.int32(values[i] > pivot)
            equal += np.int32(values[i] == pivot)
        if above < rank <= above + equal:
            return pivot
        kept = 0
        if rank <= above:
            for i in range(size):
                value = values[i]
                values[kept] = value
                kept += np.int64(value > pivot)
        else:
            rank -= above + equal
            for i in range(size):
                value = values[i]
                values[kept] = value
                kept += np.int64(value < pivot)
        size = kept


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
    index, few = np.empty(cols + 1, np.int64), np.empty(cols + 1, np.uint32)
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
            size = _pick(part, np.uint32(digit), index)
            for i in range(size):
                few[i] = part[index[i]]
            bound[0] = _largest(few, size, rank)
            values[s, row], cuts[s, row] = bound.view(np.float32)[0], cols
            if exact:
                cuts[s, row] = _cut(part, index, size, rank, bound[0])


@njit(**_FLAGS)
def _cut(part: Any, index: Any, size: int, rank: int, bound: Any) -> int:
    """The index behind those equals of the threshold that the rank lets in."""
    left = rank
    for i in range(size):
        left -= np.int64(part[index[i]] > bound)
    for i in range(size):
        left -= np.int64(part[index[i]] == bound)
        if left == 0:
            return index[i] + 1
    return index[size - 1] + 1


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


@njit(**_FLAGS)
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

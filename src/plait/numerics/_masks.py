"""Picking the few that matter out of many: 16 comparisons at a time give a mask, its bits give the places."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic

FLAGS: dict[str, Any] = {"cache": True, "nogil": True, "boundscheck": False, "error_model": "numpy"}
#: What it makes is called with fewer arguments than it takes, which type checkers do not know.
intrinsic = cast("Any", _intrinsic)
LANES = 16
_I32 = ir.IntType(32)
_VECTOR = ir.VectorType(_I32, LANES)


def _splat(builder: Any, value: Any) -> Any:
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    one = builder.insert_element(nothing, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, nothing, ir.Constant(_VECTOR, [ir.Constant(_I32, 0)] * LANES))


@intrinsic
def between16(typing_context: Any, values: Any, start: Any, low: Any, width: Any) -> Any:
    """Which of 16 uint32 from `start` on lie in `low … low + width - 1`: a mask, one bit for each."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        place = builder.bitcast(builder.gep(data, [args[1]]), _VECTOR.as_pointer())
        found = builder.load(place, align=4)
        above = builder.sub(found, _splat(builder, args[2]))
        same = builder.icmp_unsigned("<", above, _splat(builder, args[3]))
        return builder.zext(builder.bitcast(same, ir.IntType(LANES)), _I32)

    return types.uint32(values, types.int64, types.uint32, types.uint32), build


@intrinsic
def lowest(typing_context: Any, mask: Any) -> Any:
    """The index of the lowest bit that is set."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.zext(builder.cttz(args[0], cgutils.true_bit), ir.IntType(64))

    return types.int64(types.uint32), build


def _wide() -> bool:
    """Whether this machine moves the lanes of a mask together in one instruction."""
    return bool(binding.get_host_cpu_features().get("avx512f"))


@intrinsic
def _compress16(typing_context: Any, values: Any, start: Any, low: Any, width: Any, origin: Any, kept: Any,
                places: Any, at: Any) -> Any:  # fmt: skip
    """Append those of 16 values that lie in a range, and their indices; how many."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        lanes = ir.VectorType(ir.IntType(1), LANES)

        def pointer(kind: Any, array: Any, index: Any) -> Any:
            data = context.make_array(kind)(context, builder, array).data
            return builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer())

        found = builder.load(pointer(kinds[0], args[0], args[1]), align=4)
        mask = builder.icmp_unsigned(
            "<", builder.sub(found, _splat(builder, args[2])), _splat(builder, args[3])
        )
        compress = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(_VECTOR, [_VECTOR, _VECTOR, lanes]),
            "llvm.x86.avx512.mask.compress.v16i32",
        )
        counted = ir.Constant(_VECTOR, [ir.Constant(_I32, lane) for lane in range(LANES)])
        index = builder.add(counted, _splat(builder, args[4]))
        builder.store(
            builder.call(compress, [found, found, mask]), pointer(kinds[5], args[5], args[7]), align=4
        )
        builder.store(
            builder.call(compress, [index, index, mask]), pointer(kinds[6], args[6], args[7]), align=4
        )
        bits = builder.zext(builder.bitcast(mask, ir.IntType(LANES)), _I32)
        return builder.zext(builder.ctpop(bits), ir.IntType(64))

    arguments = types.int64, types.uint32, types.uint32, types.uint32
    return types.int64(values, *arguments, kept, places, types.int64), build


@njit(**FLAGS)
def _pick16(
    values: Any, start: int, low: Any, width: Any, origin: Any, kept: Any, places: Any, at: int
) -> Any:
    """The same on any machine: one bit of the mask after the other."""
    mask, count = between16(values, start, low, width), 0
    while mask:
        lane = lowest(mask)
        kept[at + count], places[at + count] = values[start + lane], origin + np.uint32(lane)
        count += 1
        mask &= mask - np.uint32(1)
    return count


take16 = _compress16 if _wide() else _pick16


@njit(**FLAGS)
def take(values: Any, size: int, low: Any, width: Any, origin: int, kept: Any, places: Any, at: int) -> int:
    """Append those of the first `size` values in `low … low + width - 1`, in order, with their indices.

    `kept` and `places` need room for 16 more than there are. Returns how many there are then.
    """
    whole = size // LANES * LANES
    for i in range(0, whole, LANES):
        at += take16(values, i, low, width, np.uint32(origin + i), kept, places, at)
    for i in range(whole, size):
        kept[at], places[at] = values[i], np.uint32(origin + i)
        at += np.int64(values[i] - low < width)
    return at


@njit(**FLAGS)
def tally_low(found: Any, size: int, prefixes: Any, out: Any) -> None:
    """Count the low 16 bits of values that begin with each prefix into `out`, `(prefixes, 65536)`."""
    one, low, whole = np.uint32(1), np.uint32(0xFFFF), size // LANES * LANES
    for w in range(prefixes.shape[0]):
        if prefixes[w] > low:  # stands for no prefix
            continue
        first, counts = np.uint32(prefixes[w] << np.uint32(16)), out[w]
        for i in range(0, whole, LANES):
            mask = between16(found, i, first, np.uint32(1 << 16))
            while mask:
                counts[found[i + lowest(mask)] & low] += one
                mask &= mask - one
        for i in range(whole, size):
            if found[i] - first <= low:
                counts[found[i] & low] += one


@njit(**FLAGS)
def gather_band(found: Any, size: int, origin: int, bands: Any, counts: Any, kept: Any, places: Any) -> None:
    """Count what lies above each band, and keep what lies in it.

    Args:
        found: bits of a tile.
        size: how many there are.
        origin: the index of the first in its tensor.
        bands: `(bands, 2)` uint32, from and up to (not included).
        counts: `(bands, 2)` int64: above, and in the band; more than there is room for is counted only.
        kept: takes the bits, `(bands, room)` uint32.
        places: takes the indices, `(bands, room)` uint32.
    """
    room = kept.shape[1]
    for b in range(bands.shape[0]):
        low, high = bands[b, 0], bands[b, 1]
        above, width = np.int32(0), np.uint32(high - low)
        for i in range(size):
            above += np.int32(found[i] >= high)
        counts[b, 0] += above
        if counts[b, 1] + size + LANES > room:
            # No room for what may come: this band is lost, and its count says so.
            counts[b, 1] = room + 1
            continue
        counts[b, 1] = take(found, size, low, width, origin, kept[b], places[b], counts[b, 1])


@njit(**FLAGS)
def largest_of(values: Any, size: int, rank: int) -> Any:
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


@njit(**FLAGS)
def cut_of(few: Any, index: Any, size: int, rank: int, bound: Any) -> int:
    """The index behind those equals of the rank-th largest that the rank lets in; `index` ascends."""
    left = rank
    for i in range(size):
        left -= np.int64(few[i] > bound)
    for i in range(size):
        left -= np.int64(few[i] == bound)
        if left == 0:
            return np.int64(index[i]) + 1
    return np.int64(index[size - 1]) + 1

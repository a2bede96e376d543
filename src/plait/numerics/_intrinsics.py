"""What compiled loops need below Python's level: bits of floats, and bfloat16 in both directions."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic as _intrinsic

#: What it makes is called with fewer arguments than it takes, which type checkers do not know.
intrinsic = cast("Any", _intrinsic)
_I16, _I32, _F32 = ir.IntType(16), ir.IntType(32), ir.FloatType()


@intrinsic
def from_bf16(typing_context: Any, bits: Any) -> Any:
    """The float32 that a bfloat16's 16 bits are."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = builder.shl(builder.zext(args[0], _I32), ir.Constant(_I32, 16))
        return builder.bitcast(wide, _F32)

    return types.float32(types.uint16), build


@intrinsic
def to_bf16(typing_context: Any, value: Any) -> Any:
    """A float32 rounded to the nearest bfloat16, ties to even; NaN stays NaN."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _I32)
        high = builder.lshr(bits, ir.Constant(_I32, 16))
        odd = builder.and_(high, ir.Constant(_I32, 1))
        up = builder.add(builder.add(bits, ir.Constant(_I32, 0x7FFF)), odd)
        rounded = builder.lshr(up, ir.Constant(_I32, 16))
        nan = builder.fcmp_unordered("uno", args[0], args[0])
        return builder.trunc(builder.select(nan, ir.Constant(_I32, 0x7FC0), rounded), _I16)

    return types.uint16(types.float32), build


@intrinsic
def bits32(typing_context: Any, value: Any) -> Any:
    """The bits of a float32."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], _I32)

    return types.uint32(types.float32), build


@intrinsic
def _wider16(typing_context: Any, found: Any, bits: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        own = builder.and_(args[1], ir.Constant(_I16, 0x7FFF))
        return builder.select(builder.icmp_unsigned(">", own, args[0]), own, args[0])

    return types.uint16(types.uint16, types.uint16), build


@njit(cache=True, nogil=True, boundscheck=False)
def largest16(values: Any) -> Any:
    """The largest magnitude among bfloat16 values, as bits."""
    found = np.uint16(0)
    for i in range(values.shape[0]):
        found = _wider16(found, values[i])
    return np.uint32(found)


@njit(cache=True, nogil=True, boundscheck=False)
def largest32(values: Any) -> Any:
    """The largest magnitude among float32 values, as bits."""
    found = np.uint32(0)
    for i in range(values.shape[0]):
        found = max(found, bits32(values[i]) & np.uint32(0x7FFFFFFF))
    return found


@njit(cache=True, nogil=True, boundscheck=False)
def local(cut: int, size: int) -> Any:
    """An index as the elements of a tile see it: between 0 and the tile's size."""
    return np.int32(min(max(cut, 0), size))


@njit(cache=True, nogil=True, boundscheck=False)
def tally_high(found: Any, size: int, out: Any) -> None:
    """Count uint16 values into `out`, `(4, 65536)`: neighbours, often equal, have tables of their own."""
    one = np.uint32(1)
    words = found.view(np.uint64)
    first, second, third, fourth = out[0], out[1], out[2], out[3]
    mask = np.uint64(0xFFFF)
    for w in range(size // 4):
        word = words[w]
        first[word & mask] += one
        second[(word >> np.uint64(16)) & mask] += one
        third[(word >> np.uint64(32)) & mask] += one
        fourth[word >> np.uint64(48)] += one
    for e in range(size // 4 * 4, size):
        first[found[e]] += one


_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _HALF, _EIGHT = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(8)
_UNIT = np.float32(2.0**-24)


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def draw_group(group: int, key0: np.uint64, key1: np.uint64, out: Any) -> None:
    """Uniform numbers of the 1024 elements of one group, as `_philox.uniform` gives them."""
    for i in range(256):
        counter = np.uint64(group) * np.uint64(256) + np.uint64(i)
        x0, x1 = counter & _LOW, counter >> _HALF
        x2, x3 = np.uint64(0), np.uint64(0)
        k0, k1 = key0, key1
        for _ in range(10):
            a, b = x0 * _M0, x2 * _M1
            x0 = (b >> _HALF) ^ x1 ^ k0
            x2 = (a >> _HALF) ^ x3 ^ k1
            x1, x3 = b & _LOW, a & _LOW
            k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
        out[i] = np.float32(x0 >> _EIGHT) * _UNIT
        out[256 + i] = np.float32(x1 >> _EIGHT) * _UNIT
        out[512 + i] = np.float32(x2 >> _EIGHT) * _UNIT
        out[768 + i] = np.float32(x3 >> _EIGHT) * _UNIT

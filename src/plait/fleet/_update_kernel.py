"""The compiled step: squares of gradients, then AdamW or SGD, over pieces (one tensor's part of one member).

Tensors come as addresses, `(tensors,)` int64, so that one call serves them all; `table` holds one row per
setting and one column per member, in the parameters' own type, which tells what the addresses hold.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numba import carray, njit, types  # pyright: ignore[reportPrivateImportUsage]
from numba.extending import intrinsic as _intrinsic

_FLAGS: dict[str, Any] = {"cache": True, "nogil": True, "boundscheck": False, "error_model": "numpy"}
#: A product and a sum in one rounding; the order of operations stays.
_CONTRACT: dict[str, Any] = {"fastmath": {"contract"}}
#: What it makes is called with fewer arguments than it takes, which type checkers do not know.
_made = cast("Any", _intrinsic)

#: Rows of `table`.
FACTOR, TAKEN, EPS, BETA1, BETA2, REST1, REST2, RATE, ROOT, MOMENTUM, AHEAD, DECAY, KEEP = range(13)


@_made
def _pointer(typing_context: Any, address: Any, like: Any) -> Any:
    """An address as a pointer to numbers of the type of `like`'s elements."""
    found = types.CPointer(like.dtype)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return found(address, like), build


@njit(**_FLAGS, fastmath={"contract", "reassoc"})
def squares(start, stop, grads, sizes, like, out):  # type: ignore[no-untyped-def]
    """The sum of squares of each piece's gradient, into `out` `(tensors, members)` in float64."""
    members = like.shape[1]
    for piece in range(start, stop):
        tensor, member = piece // members, piece % members
        size = sizes[tensor]
        g = carray(_pointer(grads[tensor] + member * size * like.itemsize, like), size)
        total = 0.0
        for i in range(size):
            total += np.float64(g[i]) * np.float64(g[i])
        out[tensor, member] = total


@njit(**_FLAGS, **_CONTRACT)
def adamw(start, stop, grads, params, firsts, seconds, sizes, decays, table):  # type: ignore[no-untyped-def]
    """p ← (1 − lr·λ)·p − lr·m̂ / (√v̂ + ε), with m and v the moments of the scaled gradient."""
    members = table.shape[1]
    for piece in range(start, stop):
        tensor, member = piece // members, piece % members
        if table[TAKEN, member] == 0:
            continue
        size = sizes[tensor]
        skip = member * size * table.itemsize
        p = carray(_pointer(params[tensor] + skip, table), size)
        g = carray(_pointer(grads[tensor] + skip, table), size)
        m = carray(_pointer(firsts[tensor] + skip, table), size)
        v = carray(_pointer(seconds[tensor] + skip, table), size)
        factor, eps = table[FACTOR, member], table[EPS, member]
        b1, c1 = table[BETA1, member], table[REST1, member]
        b2, c2 = table[BETA2, member], table[REST2, member]
        rate, root = table[RATE, member], table[ROOT, member]
        one = table.dtype.type(1)
        keep = table[KEEP, member] if decays[tensor] else one
        for i in range(size):
            x = g[i] * factor
            first = b1 * m[i] + c1 * x
            second = b2 * v[i] + c2 * x * x
            m[i] = first
            v[i] = second
            p[i] = keep * p[i] - rate * (first / (np.sqrt(second) * root + eps))


@njit(**_FLAGS, **_CONTRACT)
def sgd(start, stop, grads, params, sizes, decays, table):  # type: ignore[no-untyped-def]
    """p ← p − lr·(g + λ·p)."""
    members = table.shape[1]
    for piece in range(start, stop):
        tensor, member = piece // members, piece % members
        if table[TAKEN, member] == 0:
            continue
        size = sizes[tensor]
        skip = member * size * table.itemsize
        p = carray(_pointer(params[tensor] + skip, table), size)
        g = carray(_pointer(grads[tensor] + skip, table), size)
        factor, rate = table[FACTOR, member], table[RATE, member]
        zero = table.dtype.type(0)
        decay = table[DECAY, member] if decays[tensor] else zero
        for i in range(size):
            p[i] -= rate * (g[i] * factor + decay * p[i])


@njit(**_FLAGS, **_CONTRACT)
def momentum_sgd(start, stop, grads, params, firsts, sizes, decays, table):  # type: ignore[no-untyped-def]
    """m ← μ·m + (g + λ·p), p ← p − lr·m; with Nesterov's, p ← p − lr·(g + λ·p + μ·m)."""
    members = table.shape[1]
    for piece in range(start, stop):
        tensor, member = piece // members, piece % members
        if table[TAKEN, member] == 0:
            continue
        size = sizes[tensor]
        skip = member * size * table.itemsize
        p = carray(_pointer(params[tensor] + skip, table), size)
        g = carray(_pointer(grads[tensor] + skip, table), size)
        m = carray(_pointer(firsts[tensor] + skip, table), size)
        factor, rate = table[FACTOR, member], table[RATE, member]
        zero = table.dtype.type(0)
        one = table.dtype.type(1)
        decay = table[DECAY, member] if decays[tensor] else zero
        mu, ahead = table[MOMENTUM, member], table[AHEAD, member]
        # Plain momentum steps along m, Nesterov's along x + μ·m.
        plain = one if ahead == 0 else zero
        along = one if ahead == 0 else ahead
        for i in range(size):
            x = g[i] * factor + decay * p[i]
            first = mu * m[i] + x
            m[i] = first
            p[i] -= rate * ((one - plain) * x + along * first)

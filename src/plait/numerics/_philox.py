"""Philox4x32-10, the counter-based generator (Salmon et al., SC 2011): the same number for the same element.

Element e of a tensor takes lane (e mod 1024) // 256 of counter 256·(e // 1024) + (e mod 256), so that the
four words of one counter land 256 elements apart and stores run contiguously.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
GROUP, LANE = 1024, 256


def stream_key(seed: int, model: str, tensor: str) -> tuple[int, int]:
    """The generator's two 32-bit keys for one tensor of one model."""
    text = f"{seed}\0{model}\0{tensor}".encode()
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def philox(counters: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """The four words of each counter.

    Args:
        counters: `(n,)` 64-bit counters.
        key: two 32-bit words.

    Returns:
        `(4, n)` values below 2³², as uint64.
    """
    x0, x1 = counters & _LOW, counters >> _SHIFT
    x2, x3 = np.zeros_like(x0), np.zeros_like(x0)
    k0, k1 = key
    for _ in range(10):
        a, b = x0 * _M0, x2 * _M1
        x0 = (b >> _SHIFT) ^ x1 ^ np.uint64(k0)
        x2 = (a >> _SHIFT) ^ x3 ^ np.uint64(k1)
        x1, x3 = b & _LOW, a & _LOW
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return np.stack([x0, x1, x2, x3])


def uniform(key: tuple[int, int], start: int, stop: int) -> NDArray[np.float32]:
    """Uniform numbers in [0, 1) for elements `start:stop`, multiples of 2⁻²⁴, as float32."""
    first, last = start // GROUP, -(-stop // GROUP)
    counters = np.arange(first * LANE, last * LANE, dtype=np.uint64)
    words = philox(counters, key).reshape(4, -1, LANE).transpose(1, 0, 2).reshape(-1)
    chosen = words[start - first * GROUP : stop - first * GROUP] >> np.uint64(8)
    return chosen.astype(np.float32) * np.float32(2.0**-24)

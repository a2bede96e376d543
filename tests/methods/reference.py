"""Slow, obvious computations in float64 that methods are compared to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def trim(delta: Array, density: float) -> Array:
    """The int(density·n) entries of largest magnitude, by lowest index among equals."""
    flat = delta.reshape(-1)
    count = max(int(density * flat.size), 1) if density > 0 and flat.size else 0
    keep = sorted(range(flat.size), key=lambda i: (-abs(flat[i]), i))[:count]
    out = np.zeros_like(flat)
    out[keep] = flat[keep]
    return out.reshape(delta.shape)


def elect(deltas: list[Array], weights: list[float], *, normalize: bool) -> Array:
    """Sum what has the sign of the sum, zero counting as plus; over the weights of what agrees."""
    total = sum(deltas, np.zeros_like(deltas[0]))
    out = np.zeros_like(total)
    for index in np.ndindex(total.shape):
        positive = total[index] >= 0
        kept = [
            (d[index], w)
            for d, w in zip(deltas, weights, strict=True)
            if (d[index] > 0 if positive else d[index] < 0)
        ]
        out[index] = sum(d for d, _ in kept)
        if normalize and kept:
            out[index] /= sum(w for _, w in kept)
    return out


def slerp(t: float, a: Array, b: Array) -> Array:
    """Between two vectors on the great circle; straight where they are nearly parallel."""
    x, y = a.reshape(-1), b.reshape(-1)
    lengths = np.linalg.norm(x), np.linalg.norm(y)
    cos = float(x @ y / (lengths[0] * lengths[1])) if min(lengths) > 1e-8 else 0.0
    if abs(cos) > 0.9995:
        return (1 - t) * a + t * b
    angle = np.arccos(cos)
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)

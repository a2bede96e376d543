"""Methods on singular vectors, written out on whole matrices with numpy, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from reference import Array, State

Rule = Callable[..., Array]
Triplets = tuple[Array, Array, Array]


def svd(x: Array, scale: float) -> Triplets:
    """U, s and V of all singular values that are not rounding of numbers of this size."""
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    kept = s > max(x.shape) * np.finfo(float).eps * scale
    return u[:, kept], s[kept], vt[kept].T


def top(k: int, triplets: Triplets) -> Triplets:
    u, s, v = triplets
    return u[:, :k], s[:k], v[:, :k]


def beside(parts: Sequence[Triplets]) -> Triplets:
    u, s, v = zip(*parts, strict=True)
    return np.hstack(u), np.concatenate(s), np.hstack(v)


def polar(x: Array) -> Array:
    if not x.size:
        return x
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    kept = s > 1e-6 * s[0]
    return u[:, kept] @ vt[kept]


def tsv(deltas: Sequence[Array]) -> Array:
    k = int(min(deltas[0].shape) / len(deltas))
    if not k:
        return sum(deltas) / len(deltas)
    u, s, v = beside([top(k, svd(d, float(np.linalg.norm(d)))) for d in deltas])
    return polar(u) @ np.diag(s) @ polar(v).T


def iso_c(deltas: Sequence[Array]) -> Array:
    u, s, v = svd(sum(deltas), sum(float(np.linalg.norm(d)) for d in deltas))
    return s.mean() * u @ v.T if s.size else np.zeros_like(deltas[0])


def iso_cts(deltas: Sequence[Array], fraction: float = 0.8) -> Array:
    r, count = min(deltas[0].shape), len(deltas)
    own = round((r - int(fraction * r)) / count)
    assert own * count <= r
    norms = [float(np.linalg.norm(d)) for d in deltas]
    common = top(r - own * count, svd(sum(deltas), sum(norms)))
    rest = [d - common[0] @ common[0].T @ d for d in deltas]
    parts = [top(own, svd(x, norm)) for x, norm in zip(rest, norms, strict=True)]
    u, s, v = beside([*parts, common])
    return s.mean() * polar(u) @ polar(v).T if s.size else np.zeros_like(deltas[0])


def by_matrix(rule: Rule, base: State, models: Sequence[State], factor: float = 1.0) -> State:
    """θ₀ + λ·(a rule of matrices), convolutions as (out, rest); the mean for what is no matrix."""
    out = {}
    for key, start in base.items():
        deltas = [model[key] - start for model in models]
        merged = sum(deltas) / len(deltas)
        if start.ndim > 1 and start.size and min(len(start), start.size // len(start)) > 1:
            merged = rule([delta.reshape(len(delta), -1) for delta in deltas]).reshape(start.shape)
        out[key] = start + factor * merged
    return out

"""Slow, obvious computations in float64 that methods are compared to, written from the published formulas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from plait.numerics import stream_key, uniform

Array = NDArray[np.float64]
State = dict[str, Array]


def each(rule: Callable[..., Array], *states: State) -> State:
    """A rule of tensors, over whole models."""
    return {key: np.asarray(rule(*(state[key] for state in states))) for key in states[0]}


def task_vectors(base: State, models: Sequence[State]) -> list[State]:
    return [each(np.subtract, model, base) for model in models]


def add(base: State, merged: State, factor: float = 1.0) -> State:
    return each(lambda b, d: b + factor * d, base, merged)


def weighted_sum(states: Sequence[State], weights: Sequence[float], divisor: float = 1.0) -> State:
    return each(lambda *xs: sum(w * x for w, x in zip(weights, xs, strict=True)) / divisor, *states)


def by_scope(rule: Callable[[Array], Array], state: State, scope: str) -> State:
    """A rule of vectors, over each row, each tensor, or all tensors in the order of their names."""
    if scope == "model":
        keys = sorted(state)
        flat = rule(np.concatenate([state[key].reshape(-1) for key in keys]))
        parts = np.split(flat, np.cumsum([state[key].size for key in keys])[:-1])
        return {key: part.reshape(state[key].shape) for key, part in zip(keys, parts, strict=True)}
    out = {}
    for key, value in state.items():
        by_row = scope == "row" and value.ndim > 1 and value.size
        vectors = value.reshape(-1, value.shape[-1]) if by_row else value.reshape(1, -1)
        out[key] = np.stack([rule(vector) for vector in vectors]).reshape(value.shape)
    return out


def largest(vector: Array, count: int, ties: str) -> NDArray[np.bool_]:
    """The `count` entries of largest magnitude: the first among equals, or with all equals of the last."""
    size = np.abs(vector)
    order = sorted(range(len(vector)), key=lambda i: (-size[i], i))[:count]
    if ties == "keep" and order:
        return size >= size[order[-1]]
    return np.isin(np.arange(len(vector)), order)


def trim(delta: State, density: float, scope: str = "model", ties: str = "keep") -> State:
    """The int(density·n) largest entries, at least one unless the density is 0."""

    def rule(v: Array) -> Array:
        count = max(int(density * len(v)), 1) if density > 0 else 0
        return np.where(largest(v, count, ties), v, 0)

    return by_scope(rule, delta, scope)


def between(
    delta: State, density: float, gamma: float, scope: str = "row", ties: str = "lowest_index"
) -> State:
    """Without the int(γn) largest, the int(density·n) largest; fewer are dropped where that is too few."""

    def rule(v: Array) -> Array:
        count = int(density * len(v))
        top = min(int(gamma * len(v)), len(v) - count)
        return np.where(largest(v, top + count, ties) & ~largest(v, top, ties), v, 0)

    return by_scope(rule, delta, scope)


def keep_probability(delta: State, density: float, epsilon: float) -> State:
    """(density − ε) + 2ε·r/(n−1) for the entry of rank r in its row of n, smallest first."""

    def rule(v: Array) -> Array:
        out = np.full(len(v), density)
        for rank, i in enumerate(sorted(range(len(v)), key=lambda i: (abs(v[i]), i))):
            if len(v) > 1 and 0 < density < 1:
                out[i] = (density - epsilon) + 2 * epsilon * rank / (len(v) - 1)
        return out

    return by_scope(rule, delta, "row")


def dropped(
    delta: State, probability: State, name: str, seed: int = 0, rescale: str = "probability"
) -> State:
    """Each entry kept with its probability, by the draws of this model, and what is kept rescaled."""
    out = {}
    for key, value in delta.items():
        draws = uniform(stream_key(seed, name, key), 0, value.size).reshape(value.shape)
        kept, q = draws < probability[key], probability[key]
        out[key] = np.where(kept, value / np.where(kept & (rescale == "probability"), q, 1), 0)
    return with_l1(delta, out) if rescale == "l1" else out


def with_l1(delta: State, kept: State) -> State:
    """Scaled to the L1 norm of the whole, tensor by tensor, unless a norm is below 1e-7."""

    def scaled(whole: Array, part: Array) -> Array:
        before, after = np.abs(whole).sum(), np.abs(part).sum()
        return part * (before / after) if min(before, after) >= 1e-7 else part

    return each(scaled, delta, kept)


def elect(
    deltas: Sequence[State],
    weights: Sequence[float],
    *,
    normalize: bool = True,
    zero_sign: str = "majority",
) -> State:
    """Σ of the weighted entries that have the sign of their sum, over Σ of their weights."""
    totals = weighted_sum(deltas, weights)
    majority = sum(int(np.sign(total).sum()) for total in totals.values())
    where_zero = {"plus": True, "minus": False, "majority": majority > 0}[zero_sign]
    out = {key: np.zeros_like(total) for key, total in totals.items()}
    for key, total in totals.items():
        for index in np.ndindex(total.shape):
            positive = total[index] > 0 or (total[index] == 0 and where_zero)
            pairs = [(w * d[key][index], w) for d, w in zip(deltas, weights, strict=True)]
            agree = [(d, w) for d, w in pairs if (d > 0 if positive else d < 0)]
            out[key][index] = sum(d for d, _ in agree)
            if normalize:
                out[key][index] /= sum(w for _, w in agree) or 1
    return out


def sce(
    deltas: Sequence[Array],
    *,
    select_topk: float = 1.0,
    masked: bool = True,
    least_weight: float = 0.0,
    uniform_below: float = 0.0,
) -> Array:
    """Select by variance, calculate weights, erase minority signs, fuse: of one tensor."""
    d = np.stack(deltas)
    if not d.size:
        return d[0]
    chosen = d
    if select_topk < 1:
        variance = d.var(0)
        count = int(select_topk * np.count_nonzero(variance))
        chosen = d * largest(variance.reshape(-1), count, "lowest_index").reshape(variance.shape)
    energy = [np.mean(v**2) for v in chosen]
    if sum(energy) == 0 or sum(energy) < uniform_below:
        energy = [1.0] * len(d)
    fused = chosen if masked else d
    positive = fused.sum(0) >= 0
    merged, divisor = np.zeros_like(d[0]), np.zeros_like(d[0])
    for v, e in zip(fused, energy, strict=True):
        kept = np.where(positive, v > 0, v < 0) * e / sum(energy)
        merged, divisor = merged + kept * v, divisor + kept
    divisor = np.maximum(divisor, least_weight)
    return merged / np.where(divisor == 0, 1, divisor)


def magmax(deltas: Sequence[Array]) -> Array:
    """The entry of largest magnitude, of the last model among equals."""
    out = np.zeros_like(deltas[0])
    for index in np.ndindex(out.shape):
        out[index] = max(enumerate(deltas), key=lambda pair: (abs(pair[1][index]), pair[0]))[1][index]
    return out


def norm(x: Array) -> float:
    return float(np.sqrt((x * x).sum()))


def arc(t: float, a: Array, b: Array, cos: float) -> Array:
    angle = np.arccos(cos)
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def slerp(t: float, a: Array, b: Array) -> Array:
    """Between two vectors on the great circle; straight where they are nearly parallel."""
    lengths = [n if n > 1e-8 else 1.0 for n in (norm(a), norm(b))]
    cos = float((a * b).sum()) / (lengths[0] * lengths[1])
    return (1 - t) * a + t * b if abs(cos) > 0.9995 else arc(t, a, b, cos)


def nuslerp(a: Array, b: Array, weights: Sequence[float], axis: int | None = None) -> Array:
    """On the great circle of the whole tensors, or of their vectors along an axis."""
    if axis is not None and a.ndim:
        out = np.empty_like(a)
        for index in np.ndindex(tuple(np.delete(a.shape, axis))):
            line = (*index, slice(None)) if axis else (slice(None), *index)
            out[line] = nuslerp(a[line], b[line], weights)
        return out
    whole = weights[0] + weights[1]
    t = weights[1] / whole if abs(whole) >= 1e-6 else 0.5
    cos = float((a * b).sum()) / (max(norm(a), 1e-7) * max(norm(b), 1e-7))
    return (1 - t) * a + t * b if 1 - cos**2 <= 1e-12 else arc(t, a, b, cos)


def multislerp(
    xs: Sequence[Array], weights: Sequence[float], *, normalize: bool = True, eps: float = 1e-8
) -> Array:
    """The original in full, with the step along the tangent."""
    if len(xs) == 1:
        return xs[0]
    w = np.array(weights) / (sum(weights) if normalize else 1)
    units = [x / (norm(x) + eps) for x in xs]
    mean = sum(a * u for a, u in zip(w, units, strict=True))
    if norm(mean) < eps:
        return sum(a * x for a, x in zip(w, xs, strict=True))
    mean = mean / norm(mean)
    step = sum(a * (u - (u * mean).sum() * mean) for a, u in zip(w, units, strict=True))
    length = norm(step) + eps
    direction = mean * np.cos(length) + step * np.sin(length) / length
    return direction * sum(a * norm(x) for a, x in zip(w, xs, strict=True))


def karcher(xs: Sequence[Array], max_iter: int = 10, tol: float = 1e-5) -> Array:
    """Mean direction on the sphere by exponential and logarithm, at the mean length."""
    units = [x / norm(x) for x in xs if norm(x) > tol]
    if not units:
        return np.zeros_like(xs[0])
    mean = sum(units) / len(units)
    mean = mean / norm(mean) if norm(mean) >= tol else units[0]
    for _ in range(max_iter):
        step = np.zeros_like(mean)
        for u in units:
            cos = float(np.clip((u * mean).sum(), -1, 1))
            if tol <= np.arccos(cos) < np.pi:
                step = step + np.arccos(cos) / np.sin(np.arccos(cos)) * (u - cos * mean) / len(units)
        if norm(step) < tol:
            break
        mean = np.cos(norm(step)) * mean + np.sin(norm(step)) * step / norm(step)
        mean = mean / norm(mean)
    return mean * sum(norm(x) for x in xs) / len(xs)


def model_stock(b: Array, xs: Sequence[Array], *, by_row: bool = False, eps: float = 1e-12) -> Array:
    if by_row and b.ndim > 1:
        out = np.empty_like(b)
        for index in np.ndindex(b.shape[:-1]):
            out[index] = model_stock(b[index], [x[index] for x in xs], eps=eps)
        return out
    pairs = list(combinations([x - b for x in xs], 2))
    cos = sum(float((d * e).sum()) / max(norm(d) * norm(e), eps) for d, e in pairs) / len(pairs)
    divisor = 1 + (len(xs) - 1) * cos
    r = len(xs) * cos / divisor if abs(divisor) >= 1e-6 else 0.0
    return r * sum(xs) / len(xs) + (1 - r) * b


def arcee_fusion(q: Array, p: Array) -> Array:
    """The model's entries whose importance is at least median + 1.5·(Q₃ − Q₁)."""
    if not q.size:
        return q

    def softmax(x: Array) -> Array:
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True) + 1e-8

    a, b = softmax(np.atleast_1d(p)), softmax(np.atleast_1d(q))
    importance = np.abs(p - q) * (a * np.log(a / b)).sum(-1, keepdims=True)
    order = np.sort(importance, axis=None)
    lower, median, upper = (order[int(f * (order.size - 1))] for f in (0.25, 0.5, 0.75))
    return np.where(importance >= median + 1.5 * (upper - lower), p, q).reshape(q.shape)

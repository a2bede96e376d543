"""The ways to keep a part of a task vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from plait.methods._parts import Sparsify
from plait.methods._spec import Cell, Numbers, Option, Order, Settings, Stage, Sums
from plait.numerics import Value, absolute, minimum, where

DENSITY = Option("density", 1.0, "fraction of the entries kept", low=0.0, high=1.0, per_model=True)
SCOPE = Option(
    "scope",
    "model",
    "where entries are ranked",
    mergekit="tensor",
    kind="str",
    choices=("row", "tensor", "model"),
)
TIES = Option(
    "ties",
    "keep",
    "equal magnitudes at the threshold: keep all, or exactly the count asked for by lowest index",
    mergekit="lowest_index",
    kind="str",
    choices=("keep", "lowest_index"),
)
RESCALE = Option(
    "rescale",
    "none",
    "factor of what is kept: none, 1/probability, or the one that keeps the L1 norm of the tensor",
    kind="str",
    choices=("none", "probability", "l1"),
)


def magnitudes(c: Cell) -> Sequence[Value]:
    """|task vector| of every model."""
    return [absolute(d) for d in c.delta]


def kept_count(density: float, total: Any) -> Any:
    """int(density·total), at least 1 unless the density is 0."""
    count = np.floor(density * np.asarray(total)).astype(np.int64)
    return np.where((density > 0) & (np.asarray(total) > 0), np.maximum(count, 1), 0)


def among_largest(c: Cell, name: str, k: int, magnitude: Value) -> Value:
    """Whether the element is one of those that the order statistic counted."""
    threshold, cut = c.stat(name)[k], c.stat(f"{name}_cut")[k]
    return (magnitude > threshold) | ((magnitude == threshold) & c.before(cut))


def with_l1(keep: Callable[[Cell, int], Value], settings: Settings) -> list[Stage]:
    """The stage that finds the factor which restores the L1 norm, where it is asked for."""
    if settings.shared.get("rescale") != "l1":
        return []

    def rule(c: Cell) -> list[Value]:
        return [*magnitudes(c), *(where(keep(c, k), absolute(d), 0.0) for k, d in enumerate(c.delta))]

    def finish(sums: Sequence[Numbers], settings: Settings) -> dict[str, list[Numbers]]:
        whole, kept = sums[: settings.models], sums[settings.models :]
        return {"l1": [_ratio(a, b) for a, b in zip(whole, kept, strict=True)]}

    return [Sums("l1", rule, finish)]


def _ratio(whole: Numbers, kept: Numbers) -> Numbers:
    small = (whole < 1e-7) | (kept < 1e-7)
    return np.where(small, 1.0, whole / np.where(small, 1.0, kept))


def rescaled(c: Cell, k: int, keep: Value, probability: Callable[[Cell, int], Value]) -> Value:
    """The kept entries, with the factor that `rescale` names; only then is the probability asked for."""
    mode, delta = c.option("rescale"), c.delta[k]
    if mode == "probability":
        return where(keep, delta / probability(c, k), 0.0)
    return where(keep, delta * c.stat("l1")[k] if mode == "l1" else delta, 0.0)


def _certain(c: Cell, k: int) -> Value:
    return 1.0


def _trimmed(c: Cell, k: int) -> Value:
    return among_largest(c, "trim", k, absolute(c.delta[k]))


def _trim_stages(settings: Settings) -> list[Stage]:
    densities = settings.per_model["density"]

    def ranks(count: int, nonzero: Sequence[Numbers], settings: Settings) -> list[list[Any]]:
        return [[kept_count(density, count)] for density in densities]

    exact = settings.shared["ties"] == "lowest_index"
    order = Order("trim", magnitudes, ranks, exact, settings.shared["scope"])
    return [order, *with_l1(_trimmed, settings)]


MAGNITUDE = Sparsify(
    "magnitude",
    lambda c, k: rescaled(c, k, _trimmed(c, k), _certain),
    "keep the largest magnitudes",
    (DENSITY, SCOPE, TIES, RESCALE),
    _trim_stages,
)


def _drawn(c: Cell, k: int) -> Value:
    return c.recall(k, lambda: c.uniform(k) < c.each("density")[k])


RANDOM = Sparsify(
    "random",
    lambda c, k: rescaled(c, k, _drawn(c, k), lambda c, k: c.each("density")[k]),
    "keep each entry with probability `density`",
    (DENSITY, RESCALE),
    lambda settings: with_l1(_drawn, settings),
)

GAMMA = Option("gamma", 0.01, "fraction of the largest entries dropped", low=0.0, high=1.0, per_model=True)


def _between(c: Cell, k: int) -> Value:
    magnitude = absolute(c.delta[k])
    outer, inner = 2 * k, 2 * k + 1
    return among_largest(c, "tails", inner, magnitude) & ~among_largest(c, "tails", outer, magnitude)


def _tail_counts(total: Any, density: float, gamma: float) -> tuple[Any, Any]:
    """How many of the largest are dropped, and the rank of the last one kept."""
    keep = np.floor(density * np.asarray(total)).astype(np.int64)
    top = np.floor(gamma * np.asarray(total)).astype(np.int64)
    # Too little room for both: fewer outliers are dropped, the kept count stands.
    top = np.minimum(top, np.asarray(total) - keep)
    return top, top + keep


def _tail_stages(settings: Settings) -> list[Stage]:
    pairs = list(zip(settings.per_model["density"], settings.per_model["gamma"], strict=True))
    exact = settings.shared["ties"] == "lowest_index"
    scope = settings.shared["scope"]

    def ranks(count: int, nonzero: Sequence[Numbers], settings: Settings) -> list[tuple[Any, Any]]:
        return [_tail_counts(count, density, gamma) for density, gamma in pairs]

    return [Order("tails", magnitudes, ranks, exact, scope), *with_l1(_between, settings)]


BOTH_TAILS = Sparsify(
    "both_tails",
    lambda c, k: rescaled(c, k, _between(c, k), _certain),
    "drop the largest and the smallest magnitudes",
    (DENSITY, GAMMA, SCOPE, TIES, RESCALE),
    _tail_stages,
)

EPSILON = Option(
    "epsilon",
    0.07,
    "half the spread of the keep probabilities",
    mergekit=0.15,
    low=0.0,
    high=1.0,
    per_model=True,
)


def keep_probability(c: Cell, k: int) -> Value:
    """q = (density − ε) + 2ε·rank, clipped to [0, 1]: large magnitudes are kept more often."""
    density, epsilon = c.each("density")[k], c.each("epsilon")[k]
    # Keeping all or nothing leaves no room for a spread.
    epsilon = where((density > 0.0) & (density < 1.0), epsilon, 0.0)
    q = (density - epsilon) + (epsilon + epsilon) * c.rank(k)
    return minimum(where(q > 0.0, q, 0.0), 1.0)


def _ranked(c: Cell, k: int) -> Value:
    return c.recall(k, lambda: c.uniform(k) < keep_probability(c, k))


def _spread_fits(settings: Settings) -> str | None:
    """What is wrong where a keep probability would leave [0, 1]."""
    for density, epsilon in zip(settings.per_model["density"], settings.per_model["epsilon"], strict=True):
        if 0 < density < 1 and epsilon > 0 and not epsilon < density < 1 - epsilon:
            return f"`epsilon` is {epsilon}, and `density` ± `epsilon` must stay between 0 and 1: {density}"
    return None


BY_RANK = Sparsify(
    "by_rank",
    lambda c, k: rescaled(c, k, _ranked(c, k), keep_probability),
    "keep entries at random, the large ones of a row more often",
    (DENSITY, EPSILON, RESCALE),
    lambda settings: with_l1(_ranked, settings),
    by_row=True,
    check=_spread_fits,
)

NONE = Sparsify("none", lambda c, k: c.delta[k], "keep everything")

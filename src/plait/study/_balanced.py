"""Balanced k-means: clusters of equal size while centres are looked for."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def squared_distances(points: Floats, centres: Floats) -> Floats:
    """‖point − centre‖², `(points, centres)`."""
    found = (points**2).sum(1)[:, None] - 2 * points @ centres.T + (centres**2).sum(1)
    return np.maximum(found, 0)


def balanced_centres(points: Floats, count: int, seed: int, iterations: int = 20) -> Floats:
    """Centres of clusters that share points equally (sizes differ by 1 at most), least squares.

    Gururangan et al., arXiv:2303.14177, section 2.1. The first centres are drawn as by k-means++.

    Args:
        points: `(points, width)`, at least as many as there are clusters.
        count: of clusters.
        seed: of the draw.
        iterations: at most; fewer if no point changes its cluster.
    """
    centres, before = _drawn(points, count, np.random.default_rng(seed)), None
    prices = np.zeros(count)  # those of the last centres are nearly right for the next
    for _ in range(iterations):
        labels = balanced(squared_distances(points, centres), prices)
        if before is not None and (labels == before).all():
            break
        centres = np.stack([points[labels == cluster].mean(0) for cluster in range(count)])
        before = labels
    return centres


def balanced(costs: Floats, prices: Floats | None = None) -> Labels:
    """A cluster for each point: of least total cost for its clusters' sizes, which differ by 1 at most.

    First prices: a point takes the cluster that is cheapest with its price, and each price in turn is set so
    that its cluster gets its share (ascent on the dual, coordinate by coordinate). Any such assignment is the
    cheapest of its sizes. Then what is too much is moved along cheapest paths from cluster to cluster, which
    keeps it so (successive shortest paths; Ahuja, Magnanti & Orlin, Network Flows, section 9.7).

    Args:
        costs: `(points, clusters)`.
        prices: to begin with, `(clusters,)`; they become those that were found.
    """
    count = costs.shape[1]
    if count == 1:
        return np.zeros(len(costs), np.int64)
    prices = np.zeros(count) if prices is None else prices
    _set_prices(prices, costs)
    labels = (costs + prices).argmin(1)
    while True:
        sizes = np.bincount(labels, minlength=count)
        if sizes.max() - sizes.min() <= 1:
            return labels
        _move(labels, costs, sizes)


def _set_prices(prices: Floats, costs: Floats) -> None:
    """Set what each cluster costs besides, so that all have about their share, in place."""
    points, count = costs.shape
    share, before = points // count, points
    while True:
        for cluster in range(count):
            others = np.delete(costs + prices, cluster, axis=1).min(1) - costs[:, cluster]
            split = np.partition(others, [points - share - 1, points - share])
            prices[cluster] = split[points - share - 1 : points - share + 1].mean()
        sizes = np.bincount((costs + prices).argmin(1), minlength=count)
        over = int(np.maximum(sizes - share, 0).sum())
        # A round costs as much as moving a point for each cluster does.
        if before - over < count:
            return
        before = over


def _move(labels: Labels, costs: Floats, sizes: Labels) -> None:
    """Move points along the cheapest path from a cluster of too many to one of too few, in place."""
    count, low = len(sizes), len(labels) // len(sizes)
    high = low + (len(labels) % count > 0)
    bound = high if (sizes > high).any() else low
    sources, targets = np.flatnonzero(sizes > bound), np.flatnonzero(sizes < bound)
    extra = costs - costs[np.arange(len(labels)), labels][:, None]
    edges = np.full((count, count), np.inf)
    for cluster in np.flatnonzero(sizes):
        edges[cluster] = extra[labels == cluster].min(0)
    path = _cheapest(edges, sources, targets)
    # Points that cost the same to move go together: copies of one document.
    steps = list(itertools.pairwise(path))
    movable = [np.flatnonzero((labels == a) & (extra[:, b] == edges[a, b])) for a, b in steps]
    many = min(sizes[path[0]] - bound, bound - sizes[path[-1]], *(len(each) for each in movable))
    for (_, after), each in zip(steps, movable, strict=True):
        labels[each[:many]] = after


def _cheapest(edges: Floats, sources: Labels, targets: Labels) -> list[int]:
    """The clusters along the cheapest path from one of `sources` to one of `targets` (Bellman & Ford)."""
    count = len(edges)
    cost, before = np.full(count, np.inf), np.full(count, -1)
    cost[sources] = 0
    for _ in range(count - 1):
        through = cost[:, None] + edges
        nearer = through.min(0) < cost - 1e-12
        if not nearer.any():
            break
        before[nearer] = through.argmin(0)[nearer]
        cost = np.where(nearer, through.min(0), cost)
    path = [int(targets[cost[targets].argmin()])]
    while before[path[-1]] >= 0:
        path.append(int(before[path[-1]]))
    return path[::-1]


def _drawn(points: Floats, count: int, random: np.random.Generator) -> Floats:
    """Points, each drawn in proportion to its squared distance from those drawn before."""
    chosen = [int(random.integers(len(points)))]
    for _ in range(count - 1):
        far = squared_distances(points, points[chosen]).min(1)
        far[chosen] = 0
        left = np.setdiff1d(np.arange(len(points)), chosen)
        total = far.sum()
        chosen.append(int(random.choice(len(points), p=far / total) if total > 0 else random.choice(left)))
    return points[chosen].copy()

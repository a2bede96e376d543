"""Whether two splits drawn from one population would have as many examples in common.

Chance is the larger of two estimates of how much of one split is in the other (as long as that is), each from
what lies *within* a split, which a copy from one to the other leaves as it is, and of the two splits the one
that has less, as a training set may hold rows many times on purpose:

- by rows that are there several times: Good's coverage of a sample of m, 1 − f₁/m, put forward to the other's
  length n as Chao and Jost do (2012, "Coverage-based rarefaction and extrapolation", Ecology 93). With f₁ and
  f₂ the numbers of rows that are there once and twice, C(n) = 1 − f₁/m · A^(n−m), where A is
  (m−1)f₁ / ((m−1)f₁ + 2f₂), or (m−1)(f₁−1) / ((m−1)(f₁−1) + 2) if f₂ = 0;
- by columns, for data too few to show that: as if they were independent, another row is like this with
  p = ∏ p_c, p_c the share of rows that are like it in c, and it is among n others with 1 − (1 − p)^n.

Counts that estimates are made of are taken two standard errors off, so that chance is the larger.
Labels of rows whose inputs are in both splits say whether these were copied or measured twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.tasks._contents import Contents

#: How rarely chance may have splits refused that are drawn as they should be.
_LEVEL = 0.01
#: Of rows whose inputs are in both splits, the share that has another label if they are no copies.
_DIFFERING = 0.05


def by_chance(
    found: int, small: Contents, large: Contents, names: Sequence[str], types: Mapping[str, str]
) -> bool:
    """Whether chance explains that `found` rows of the smaller split are in the larger.

    By Chernoff's bound: of m rows, each there with q, a share s > q is with exp(−m · KL(s ‖ q)) at most.
    """
    q = max(_by_repeats(small, large, names, types), _by_columns(small, large, names, types))
    share = found / len(small)
    if share <= q:
        return True
    divergence = share * math.log(share / q) if q else math.inf
    if share < 1:
        divergence += (1 - share) * math.log((1 - share) / (1 - q))
    return len(small) * divergence < -math.log(_LEVEL)


def _by_repeats(small: Contents, large: Contents, names: Sequence[str], types: Mapping[str, str]) -> float:
    one, other = (_once(each.counted(names, types)[1]) for each in (small, large))
    return min(coverage(each, int(other.sum())) for each in (one, other))


def _once(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """A split that was repeated as a whole says as much as it did before."""
    return counts // np.gcd.reduce(counts)


def coverage(counts: NDArray[np.int64], size: int) -> float:
    """How likely a new row is among `size` ones, at most: by how often each of some rows is there."""
    rows, once, twice = int(counts.sum()), int((counts == 1).sum()), float(_at_most((counts == 2).sum()))
    if not once:
        return 1.0
    slope, pairs = ((rows - 1) * once, twice) if twice else ((rows - 1) * (once - 1), 1.0)
    unseen = max(once / rows - 2 * math.sqrt(once * (rows - once) / rows) / rows, 0)
    return 1 - unseen * (slope / (slope + 2 * pairs)) ** max(size - rows, 0)


def _by_columns(small: Contents, large: Contents, names: Sequence[str], types: Mapping[str, str]) -> float:
    found = []
    for each in (small, large):
        alike = np.prod([share_alike(each.parts(name, types[name])) for name in names], axis=0)
        found.append(float((1 - (1 - alike) ** len(large)).mean()))
    return min(found)


def share_alike(table: NDArray[np.generic]) -> NDArray[np.float64]:
    """For each row the share of others that are like it, at most, if columns are independent.

    Half a pair more is taken to be there, as none among a few does not say that there can't be one.
    """
    rows = len(table)
    if rows < 2 or not table.shape[1]:
        return np.ones(rows)
    order = np.argsort(table, axis=0, kind="stable")
    held = np.take_along_axis(table, order, axis=0)
    run = np.cumsum(np.concatenate([np.zeros((1, held.shape[1]), int), held[1:] != held[:-1]]), axis=0)
    run += rows * np.arange(held.shape[1])  # runs of equal ones, numbered through all columns
    others = np.empty(held.shape)
    np.put_along_axis(others, order, np.bincount(run.ravel())[run] - 1.0, axis=0)
    return np.minimum((_at_most(others) + 1 / rows) / (rows - 1), 1).prod(axis=1)


def _at_most(counts: Any) -> Any:
    """Counts, with two standard errors of what is counted as it happens."""
    return counts + 2 * np.sqrt(counts)


def labels_by_chance(
    small: Contents, large: Contents, inputs: Sequence[str], label: str, types: Mapping[str, str]
) -> bool:
    """Whether labels of rows whose inputs are in both splits differ too often for copies.

    What is measured twice has the same inputs, and outcomes of its own: those of people who are asked again
    are mostly the same, those of rare events nearly always. So it is enough if one in 20 differs, or half as
    many as of labels drawn anew.
    """
    rows, answers = small.numbers(inputs, types), small.numbers([label], types)
    _, first = np.unique(large.numbers([*inputs, label], types), return_index=True)
    known, other_answers = large.numbers(inputs, types)[first], large.numbers([label], types)[first]
    values, counts = np.unique(answers, return_counts=True)
    often = np.where(np.isin(other_answers, values), counts[_at(values, other_answers)] / len(rows), 0)
    places, which = np.unique(known, return_inverse=True)
    agree = np.bincount(which, often)[_at(places, rows)]  # that a drawn label is one of the other's here
    alike = np.isin(rows, known)
    same = np.isin(small.numbers([*inputs, label], types), large.numbers([*inputs, label], types))
    enough = min(_DIFFERING * float(alike.sum()), float((1 - agree)[alike].sum()) / 2)
    return float((alike & ~same).sum()) > enough


def _at(values: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> NDArray[np.int64]:
    return np.minimum(np.searchsorted(values, wanted), len(values) - 1)

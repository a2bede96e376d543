"""Tests of paired differences over few seeds, corrected for their number."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Seeds up to which all signs are tried; with more, so many are drawn.
_ALL, _DRAWS = 14, 16_384


def student(t: float, freedom: int) -> float:
    """P(|T| ≥ |t|) of Student's t with a whole number of degrees of freedom.

    The finite series in θ = arctan(t/√ν), Abramowitz & Stegun 26.7.3 and 26.7.4.
    """
    if math.isinf(t):
        return 0.0
    angle = math.atan(abs(t) / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    term, total = (1.0, 1.0) if freedom % 2 == 0 else (cosine, cosine)
    for k in range(2 if freedom % 2 == 0 else 3, freedom - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    if freedom % 2 == 0:
        inside = sine * total
    else:
        inside = 2 / math.pi * (angle + (sine * total if freedom > 1 else 0.0))
    return max(1.0 - inside, 0.0)


def student_quantile(tail: float, freedom: int) -> float:
    """The t whose two tails together have a probability."""
    low, high = 0.0, 1.0
    while student(high, freedom) > tail:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if student(middle, freedom) > tail else (low, middle)
    return high


def paired_t(differences: Floats) -> Floats:
    """Student's paired t-test, two-sided: for `(seeds, tests)` differences, p of each test.

    Differences that are the same for all seeds are certain: p is 1 if they are 0, else 0.
    """
    count = len(differences)
    mean = differences.mean(0)
    error = differences.std(0, ddof=1) / math.sqrt(count)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(mean == 0, 0.0, mean / error)
    return np.array([student(float(value), count - 1) for value in t])


def sign_flips(differences: Floats) -> Floats:
    """The paired permutation test, two-sided: the share of signs of the seeds' differences for which their
    mean is at least as far from 0. It asks for no distribution but one symmetric about 0.

    All signs are tried; of more than 14 seeds 16,384 are drawn, the same for the same number of seeds.
    """
    count = len(differences)
    if count <= _ALL:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=count)))
    else:
        drawn = np.random.default_rng(0).choice((1.0, -1.0), (_DRAWS - 1, count))
        signs = np.concatenate([np.ones((1, count)), drawn])
    sums = np.abs(signs @ differences)
    # the sum of the differences as they are, rounded in another order, is as far
    return (sums >= np.abs(differences.sum(0)) * (1 - 1e-12)).mean(0)


def holm(p: Floats) -> Floats:
    """p corrected for the number of tests by Holm's step-down method (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    found = np.empty_like(p)
    found[order] = np.minimum(steps, 1.0)
    return found

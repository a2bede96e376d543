"""The bootstrap: how far a score would move, had other examples of the same kind been drawn.

Percentile intervals (Efron 1979): examples are drawn with replacement, as many as there are, and the score of
each draw is taken from the sums of what its examples add. One task's draws depend on its name, its number of
examples and the seed alone, so that all models are scored on the same draws, whenever they are scored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from plait.numerics import stream_key
from plait.tasks._metrics import Floats, Summary

#: Counts held at a time, some 30 MB.
_HELD = 1 << 22
LEVEL = 0.95


def draws(
    numbers: Sequence[Floats], summary: Summary, task: str, *, resamples: int, seed: int
) -> list[Floats]:
    """Scores over resampled examples.

    Args:
        numbers: for each model `(n, k)`, what each example adds; the same examples in the same order.
        summary: makes scores `(…)` of sums `(…, k)`.
        task: its name, of which the draws depend.
        resamples: how often examples are drawn.
        seed: of the draws.

    Returns:
        for each model `(resamples,)`.
    """
    if not numbers:
        return []
    sums = [np.empty((resamples, each.shape[1])) for each in numbers]
    for start, counts in _counts(len(numbers[0]), resamples, stream_key(seed, "bootstrap", task)):
        for total, each in zip(sums, numbers, strict=True):
            with np.errstate(invalid="ignore"):  # an example that is no number makes no number
                total[start : start + len(counts)] = counts @ each
    return [np.asarray(summary(total), dtype=np.float64) for total in sums]


def _counts(n: int, resamples: int, key: tuple[int, int]) -> Iterator[tuple[int, Floats]]:
    """How often each example is drawn, `(some resamples, n)` at a time, and which resample comes first."""
    low, high = key
    generator = np.random.Generator(np.random.Philox(key=low | high << 32))
    some = max(_HELD // n, 1)
    for start in range(0, resamples, some):
        rows = min(some, resamples - start)
        drawn: NDArray[np.int64] = generator.integers(n, size=(rows, n))
        drawn += np.arange(rows)[:, None] * n
        yield start, np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def interval(values: Floats, level: float = LEVEL) -> tuple[float, float]:
    """The percentile interval of draws, `(low, high)`.

    Draws without a score (0 / 0: all that they hold is weightless) are left out. NaN for both if none is
    left, or one is infinite.
    """
    values = values[~np.isnan(values)]
    if not len(values) or np.isinf(values).any():
        return math.nan, math.nan
    outside = (1 - level) / 2
    low, high = np.quantile(values, (outside, 1 - outside))
    return float(low), float(high)

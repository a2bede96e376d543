"""Order statistics of one tensor in one pass: a sample says about where they lie, the pass keeps those.

The answer is exact whatever the sample was: counts above the band and what was kept in it settle the rank,
or show that it lies elsewhere, and then the histograms of `_stages` find it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from plait.engine._compiled import Pass
from plait.engine._job import Job
from plait.engine._kernels import bits_of, compiles, kernel_of, scratch
from plait.methods import Order

#: Elements of the sample: many short runs.
_RUN, _RUNS = 512, 128
#: Half the band's width in standard deviations of the sampled rank; neighbours are alike, so it is wide.
_SPREAD = 10.0
#: Part of the tensor that a band may hold.
_ROOM = 0.12


def order_in_one_pass(
    job: Job, stage: Order, stats: dict[str, list[Any]]
) -> tuple[list[float], list[float]] | None:
    """The k-th largest of each magnitude and rank, and the index that cuts its equals; None if it must be
    found otherwise.
    """
    total = job.grid.numel
    if not compiles(job) or job.method.by_row or total < 8 * _RUN * _RUNS or total >= 1 << 32:
        return None
    sample = _sample(job, stage, stats)
    share = total / sample.shape[1]
    guess = [np.asarray(float((s > 0).sum()) * share) for s in sample]
    ranks = _ranks(job, stage, guess)
    bands = np.array([_bands(s, ks / share) for s, ks in zip(sample, ranks, strict=True)], dtype=np.uint32)
    counts = np.zeros((*ranks.shape, 2), dtype=np.int64)
    room = min(int(total * _ROOM), job.memory // (8 * ranks.size))
    if room * 10 < total:
        return None
    kept = scratch("kept", (*ranks.shape, room), np.uint32)
    places = scratch("places", (*ranks.shape, room), np.uint32)
    zeros = np.zeros(len(sample), dtype=np.int64)
    run = Pass(job, "band", stage.rule, (), stats)
    for block in job.blocks():
        run.over(block, (kept, places, zeros), counts, bands)
    ranks = _ranks(job, stage, [np.asarray(float(total - z)) for z in zeros])
    return _settle(ranks, counts, kept, places, exact=stage.exact)


def _ranks(job: Job, stage: Order, nonzero: Sequence[Any]) -> Any:
    total = job.grid.numel
    found = stage.ranks(total, nonzero, job.settings)
    return np.array([[min(int(k), total) for k in ks] for ks in found], dtype=np.int64)


def _sample(job: Job, stage: Order, stats: dict[str, list[Any]]) -> Any:
    """Bits of the magnitudes of a sample, `(magnitudes, elements)`, each row ascending."""
    total = job.grid.numel
    stride = total // _RUNS | 1  # odd, or every run could lie in the same columns
    arrays: list[list[Any]] = [[] for _ in job.tensors]
    if job.hold:
        for block in job.blocks():
            for found, slot in zip(arrays, block.slots, strict=True):
                whole = len(slot.array) // stride * stride
                found.append(slot.array[:whole].reshape(-1, stride)[:, :_RUN].reshape(-1))
    else:
        for start in range(0, total - stride, stride):
            for found, slot in zip(arrays, job.piece(start, start + _RUN).slots, strict=True):
                found.append(slot.array)
    joined = [np.concatenate(found) for found in arrays]
    bits = bits_of(job, kernel_of(job, "bits", stage.rule, stats, joined), stats, 0, joined)
    return np.sort(bits, axis=1)


def _bands(ordered: Any, ranks: Any) -> list[tuple[int, int]]:
    """For each rank (of the sample) a range of bits in which the tensor's is likely to be."""
    size, bands = len(ordered), []
    for rank in ranks:
        spread = _SPREAD * math.sqrt(max(rank * (size - rank) / size, 1.0))
        low, high = math.floor(rank + spread), math.floor(rank - spread)
        first = int(ordered[size - low]) if 0 < low <= size else 0
        last = int(ordered[size - high]) + 1 if 0 < high <= size else 1 << 31
        bands.append((0, 0) if rank <= 0 else (first, last))
    return bands


def _settle(
    ranks: Any, counts: Any, kept: Any, places: Any, *, exact: bool
) -> tuple[list[float], list[float]] | None:
    from plait.numerics._masks import cut_of, largest_of

    values: list[float] = []
    cuts: list[float] = []
    for m, k in np.ndindex(*ranks.shape):
        rank, (above, size) = int(ranks[m, k]), counts[m, k]
        if rank <= 0:
            values.append(math.inf)
            cuts.append(0.0 if exact else math.inf)
            continue
        if not above < rank <= above + size or size > kept.shape[2]:
            return None
        few = kept[m, k, :size]
        bits = largest_of(few.copy(), size, rank - above)
        values.append(float(np.uint32(bits).view(np.float32)))
        # The cut only matters where not all equals are let in, as in the histograms' search.
        cut = cut_of(few, places[m, k], size, rank - above, bits) if exact else math.inf
        cuts.append(float(cut))
    return values, cuts

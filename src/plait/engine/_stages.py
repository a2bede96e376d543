"""Running a method's stages: sums and order statistics over a tensor, or over all of them.

A stage of scope `row` needs nothing but its own rows, so it is evaluated wherever a chunk is looked at. One
of scope `tensor` streams over the tensor before the rule runs; one of scope `model` over all tensors.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from plait.engine._compiled import Pass, Tally
from plait.engine._job import BlockCell, Job
from plait.engine._kernels import compiles
from plait.methods import Order, Settings, Sums
from plait.numerics import Search, bit_levels, keys, level_counts, row_order, where

Stats = dict[str, list[Any]]
Stage = Sums | Order


def quiet() -> contextlib.AbstractContextManager[object]:
    """NaN and infinity that the user let in go their way without numpy's warnings."""
    return np.errstate(invalid="ignore", divide="ignore", over="ignore")


def cells(job: Job, rows: Sequence[Stage], stats: Mapping[str, Sequence[Any]]) -> Any:
    """A cell for each chunk of the tensor, with the row stages' results in it."""
    for block in job.blocks():
        for start, stop, values in job.chunks(block):
            yield start, stop, chunk_cell(job, start, stop, values, rows, stats)
    job.checked = True


def chunk_cell(
    job: Job, start: int, stop: int, values: Any, rows: Sequence[Stage], stats: Mapping[str, Sequence[Any]]
) -> BlockCell:
    """The cell of one chunk; row stages are evaluated on the spot."""
    found: dict[str, Any] = dict(stats)
    cell = BlockCell(job, start, stop, values, found)
    for stage in rows:
        if isinstance(stage, Sums):
            seen = cell.double() if stage.double else cell
            sums = [v.double().sum(-1).cpu().numpy() for v in stage.rule(seen)]
            with quiet():
                found.update(stage.finish(sums, job.settings))
        else:
            _row_order(job, stage, cell, found)
    return cell


def _row_order(job: Job, stage: Order, cell: BlockCell, found: dict[str, Any]) -> None:
    magnitudes = stage.rule(cell)
    nonzero = [(m > 0).sum(-1).cpu().numpy().astype(np.float64) for m in magnitudes]
    ranks = stage.ranks(job.grid.cols, nonzero, job.settings)
    pairs = [p for m, ks in zip(magnitudes, ranks, strict=True) for p in row_order(m, ks, stage.exact)]
    found[stage.name] = [value for value, _ in pairs]
    found[f"{stage.name}_cut"] = [cut for _, cut in pairs]


def sum_partials(job: Job, stage: Sums, rows: Sequence[Stage], stats: Stats) -> list[float]:
    """Σ of each expression over one tensor: float64 within a chunk, exactly rounded over chunks."""
    if compiles(job):
        run = Pass(job, "products" if stage.double else "sums", stage.rule, rows, stats)
        blocks = [run.sums(block) for block in job.blocks()]
        job.recalls = job.kept is not None
        return [math.fsum(column) for column in np.concatenate(blocks).T] if blocks else []
    parts: list[list[float]] = []
    for _, _, cell in cells(job, rows, stats):
        values = stage.rule(cell.double() if stage.double else cell)
        parts = parts or [[] for _ in values]
        for part, value in zip(parts, values, strict=True):
            part.append(float(value.double().sum()))
    return [math.fsum(part) for part in parts]


class OrderSearch:
    """The search of one `Order` stage over one tensor or over many."""

    def __init__(self, stage: Order, jobs: Sequence[Job]) -> None:
        self.stage, self.jobs = stage, list(jobs)
        self.levels = bit_levels(self.jobs[0].compute)
        self.searches: list[list[Search]] = []
        self.equals: list[list[int]] = []

    def count(self, job: Job, level: int, rows: Sequence[Stage], stats: Stats) -> dict[tuple[int, int], Any]:
        """One tensor's histograms: (magnitude, prefix) → counts; with (magnitude, -1) → zeros at level 0."""
        if compiles(job) and not rows:
            return self._count_compiled(job, level, stats)
        found: dict[tuple[int, int], Any] = {}
        for _, _, cell in cells(job, rows, stats):
            for m, magnitude in enumerate(self.stage.rule(cell)):
                bits = keys(magnitude)
                prefixes = {s.prefix for s in self.searches[m] if s.rank > 0} if level else {0}
                for prefix in prefixes:
                    counts = level_counts(bits, level, self.levels, prefix)
                    found[m, prefix] = found[m, prefix] + counts if (m, prefix) in found else counts
                if not level:
                    zeros = int((bits == 0).sum())
                    found[m, -1] = found.get((m, -1), 0) + zeros
        return found

    def _count_compiled(self, job: Job, level: int, stats: Stats) -> dict[tuple[int, int], Any]:
        tally = Tally(job, self.stage.rule, stats)
        if not level:
            for block in job.blocks():
                tally.high(block)
            found: dict[tuple[int, int], Any] = {(m, 0): counts for m, counts in enumerate(tally.counts())}
            return {**found, **{(m, -1): int(count) for m, count in enumerate(tally.zeros)}}
        wanted = [sorted({s.prefix for s in ss if s.rank > 0}) for ss in self.searches]
        width = max((len(prefixes) for prefixes in wanted), default=0)
        if not width:
            return {}
        # A prefix that no key has fills the places that are left.
        padded = np.asarray([p + [1 << 16] * (width - len(p)) for p in wanted], dtype=np.uint32)
        for block in job.blocks():
            tally.low(block, padded)
        counts = tally.counts()
        return {(m, p): counts[m, w] for m, prefixes in enumerate(wanted) for w, p in enumerate(prefixes)}

    def start(self, counts: Mapping[tuple[int, int], Any], total: int, settings: Settings) -> None:
        """Ask for ranks, now that the number of zeros is known."""
        magnitudes = 1 + max((m for m, _ in counts), default=-1)
        nonzero = [np.asarray(float(total - counts[m, -1])) for m in range(magnitudes)]
        ranks = self.stage.ranks(total, nonzero, settings)
        self.searches = [[Search(min(int(k), total)) for k in ks] for ks in ranks]
        self.equals = [[0] * len(ks) for ks in ranks]

    def refine(self, counts: Mapping[tuple[int, int], Any]) -> None:
        """Take the merged counts of one level."""
        for m, searches in enumerate(self.searches):
            for j, search in enumerate(searches):
                if search.rank > 0:
                    found = counts[m, search.prefix]
                    search.refine(found)
                    self.equals[m][j] = int(found[search.prefix & 0xFFFF])

    def thresholds(self) -> list[float]:
        """The k-th largest of each search; infinity where k ≤ 0."""
        return [s.value(self.levels) if s.rank > 0 else math.inf for ss in self.searches for s in ss]

    def needs_cut(self) -> bool:
        """Whether some equals lie beyond the count asked for."""
        pairs = zip(self.searches, self.equals, strict=True)
        return self.stage.exact and any(
            0 < s.rank < e for ss, es in pairs for s, e in zip(ss, es, strict=True)
        )

    def equal_positions(
        self, job: Job, rows: Sequence[Stage], stats: Stats, before: Sequence[int]
    ) -> tuple[list[float], list[int]]:
        """For each search, the index in this tensor that cuts its equals, and how many it has up to here.

        Args:
            job: the tensor.
            rows: row stages that the rule needs.
            stats: results of earlier stages.
            before: equals in tensors before this one.
        """
        values, wanted = self.thresholds(), [s.rank for ss in self.searches for s in ss]
        width = len(self.searches[0])
        known: Stats = {**stats, "equal": values}

        def equals(c: Any) -> list[Any]:
            magnitudes = self.stage.rule(c)
            return [where(magnitudes[i // width] == t, 1.0, 0.0) for i, t in enumerate(c.stat("equal"))]

        per_chunk = _chunk_sums(job, equals, rows, known)
        cuts = [math.inf if rank > 0 else 0.0 for rank in wanted]
        ends = np.asarray(before, dtype=np.int64) + np.cumsum(per_chunk, axis=0, dtype=np.int64)
        for i, rank in enumerate(wanted):
            if before[i] >= rank:
                cuts[i] = 0.0
            elif len(ends) and ends[-1, i] >= rank:
                chunk = int(np.searchsorted(ends[:, i], rank))
                first = int(ends[chunk - 1, i]) if chunk else before[i]
                cuts[i] = self._locate(job, i, chunk, rank - first, rows, known)
        return cuts, [int(n) for n in ends[-1]] if len(ends) else list(before)

    def _locate(
        self, job: Job, search: int, chunk: int, rank: int, rows: Sequence[Stage], stats: Stats
    ) -> float:
        """The index behind the rank-th equal of one chunk."""
        start = chunk * job.grid.step
        stop = min(start + job.grid.step, job.grid.numel)
        block = job.piece(start, stop)
        (_, _, values), *_ = job.chunks(block)
        magnitudes = self.stage.rule(chunk_cell(job, start, stop, values, rows, stats))
        threshold = torch.tensor(stats["equal"][search], dtype=job.compute, device=job.device)
        equal = (magnitudes[search // len(self.searches[0])] == threshold).reshape(-1)
        return float(start + int(equal.nonzero().reshape(-1)[rank - 1]) + 1)


def _chunk_sums(job: Job, rule: Any, rows: Sequence[Stage], stats: Stats) -> Any:
    """Σ of each expression over each chunk, `(chunks, expressions)`."""
    if compiles(job):
        run = Pass(job, "sums", rule, rows, stats)
        blocks = [run.sums(block) for block in job.blocks()]
        return np.concatenate(blocks) if blocks else np.zeros((0, len(stats["equal"])))
    found = [[float(v.double().sum()) for v in rule(cell)] for _, _, cell in cells(job, rows, stats)]
    return np.asarray(found).reshape(len(found), -1)

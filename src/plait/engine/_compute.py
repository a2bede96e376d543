"""From a job to its output: stages first, then the rule, one chunk at a time, rounded once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plait.engine._band import order_in_one_pass
from plait.engine._compiled import Pass
from plait.engine._job import BlockCell, Job
from plait.engine._kernels import compiles
from plait.engine._matrix import merged_matrices
from plait.engine._stages import OrderSearch, Stage, Stats, chunk_cell, quiet, sum_partials
from plait.errors import InputError
from plait.methods import Order, Sums


def tensor_stages(
    job: Job, known: Mapping[str, Sequence[Any]], *, until: Stage | None = None
) -> tuple[Stats, list[Stage]]:
    """Run the stages of scope `tensor`, in order; those of scope `model` are in `known`.

    Args:
        job: the tensor.
        known: results of stages over the whole model.
        until: stop before this stage.

    Returns:
        The results, and the row stages for whoever looks at chunks.
    """
    job.kept, job.recalls = None, False  # what an earlier pass noted may be another job's by now
    stats: Stats = {name: list(values) for name, values in known.items()}
    rows: list[Stage] = []
    for stage in job.method.stages(job.settings):
        if until is not None and stage.name == until.name:
            break
        if stage.scope == "row":
            rows.append(stage)
        elif stage.scope == "tensor":
            stats.update(_one_stage(job, stage, rows, stats))
    return stats, rows


def _one_stage(job: Job, stage: Stage, rows: Sequence[Stage], stats: Stats) -> Stats:
    if isinstance(stage, Sums):
        return finish_sums(job, stage, sum_partials(job, stage, rows, stats))
    found = order_in_one_pass(job, stage, stats) if not rows else None
    if found is not None:
        return order_stats(stage, *found)
    search = OrderSearch(stage, [job])
    for level in range(search.levels):
        counts = search.count(job, level, rows, stats)
        if not level:
            search.start(counts, job.grid.numel, job.settings)
        search.refine(counts)
    thresholds = search.thresholds()
    if search.needs_cut():
        cuts, _ = search.equal_positions(job, rows, stats, [0] * len(thresholds))
    else:
        cuts = all_or_none(thresholds)
    return order_stats(stage, thresholds, cuts)


def finish_sums(job: Job, stage: Sums, sums: Sequence[float]) -> Stats:
    """What a stage makes of its sums."""
    with quiet():
        found = stage.finish([np.asarray(s) for s in sums], job.settings)
    return {name: list(values) for name, values in found.items()}


def order_stats(stage: Order, thresholds: Sequence[float], cuts: Sequence[float]) -> Stats:
    """The two results of an order stage."""
    return {stage.name: list(thresholds), f"{stage.name}_cut": list(cuts)}


def all_or_none(thresholds: Sequence[float]) -> list[float]:
    """Cuts that let all equals in."""
    return [float("inf")] * len(thresholds)


def merged(job: Job, known: Mapping[str, Sequence[Any]]) -> Iterator[tuple[int, Tensor]]:
    """The output, `(start, flat values in the output type)`, in order, in whole chunks or matrices.

    The values are the caller's until it asks for the next ones.

    Raises:
        InputError: an input holds NaN or infinity and the job forbids it.
    """
    if job.grid.numel == 0:
        return
    if job.method.matrix is not None and job.settings.matrices is not None:
        yield from merged_matrices(job, job.method.matrix)
        return
    if job.method.whole(job.settings):
        yield 0, _whole(job, known)
        return
    stats, rows = tensor_stages(job, known)
    fast = compiles(job)
    run = Pass(job, "combine", job.method.combine, rows, stats)
    for block in job.blocks():
        if fast:
            yield block.start, run.combine(block)
            continue
        parts = [
            _combined(job, chunk_cell(job, start, stop, values, rows, stats), stop - start)
            for start, stop, values in job.chunks(block)
        ]
        yield block.start, parts[0] if len(parts) == 1 else torch.cat(parts)
    job.release()


def _combined(job: Job, cell: BlockCell, size: int) -> Tensor:
    """The rule's values for `size` elements, rounded once."""
    with quiet():
        value = job.method.combine(cell)
    if not isinstance(value, Tensor) or value.numel() != size:
        found = list(value.shape) if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise InputError(
            f"the method `{job.method.name}` gives {found} where {list(cell.models[0].shape)} is needed",
            where=f"tensor `{job.name}`",
        )
    return job.rounded(value).reshape(-1).cpu()


def _whole(job: Job, known: Mapping[str, Sequence[Any]]) -> Tensor:
    numel = job.grid.numel
    values = [tensor.read_flat(0, numel).to(job.device, job.compute) for tensor in job.tensors]
    job.check(values)
    cell = BlockCell(job, 0, numel, [v.view(job.shape) for v in values], dict(known))
    return _combined(job, cell, numel)

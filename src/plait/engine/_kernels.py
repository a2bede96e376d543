"""Kernels of rules: traced once, compiled once, and handed the numbers that each tensor has."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from plait.engine._job import Job
from plait.engine._trace import Stats, TraceCell, is_row_stat
from plait.methods import Method, Order, Sums
from plait.numerics._kernel import Spec, source
from plait.numerics._kernel_cache import load

Kernel = Callable[..., Any]
Rule = Callable[[Any], Any]
Rows = Sequence[Sums | Order]
_KERNELS: dict[Any, tuple[Kernel, TraceCell, int, Method]] = {}
_OWN = threading.local()
NONE = np.empty((0, 0), dtype=np.uint32)
_UNKEPT = np.empty(0, dtype=np.uint8)


def compiles(job: Job) -> bool:
    """Whether this job's rules run compiled: on a CPU, in float32, without sums over rows."""
    if job.device.type != "cpu" or job.compute != torch.float32 or not job.compiled:
        return False
    row_sums = any(isinstance(s, Sums) and s.scope == "row" for s in job.method.stages(job.settings))
    return not row_sums and not job.method.whole(job.settings)


def kernel_of(
    job: Job, kind: str, rule: Rule, stats: Stats, arrays: Sequence[Any]
) -> tuple[Kernel, TraceCell, int]:
    """The kernel of a rule, the cell that traced it, and how many expressions it gives."""
    words = tuple(
        (o.name, job.settings.shared[o.name]) for o in job.method.options if not o.per_model and not o.runtime
    )
    shape = tuple((name, len(values), is_row_stat(values)) for name, values in sorted(stats.items()))
    inputs = "".join("b" if a.dtype == np.uint16 else "f" for a in arrays)
    output = "b" if job.dtype == torch.bfloat16 else "f"
    recall = "read" if job.recalls else "write" if kind == "sums" and job.notes else ""
    # The method is kept, so its id stays its own.
    key = id(job.method), kind, _identity(rule), words, shape, inputs, output, job.has_base, recall
    if key not in _KERNELS:
        cell = TraceCell(job, stats, recall)
        found = rule(cell)
        results = [found] if kind == "combine" else list(found)
        counts = [len(c) for c in (cell.params, cell.cuts, cell.row_params, cell.row_cuts)]
        spec = Spec(kind, inputs, output, *counts, ranks=tuple(cell.ranks), recalls=cell.recalled)
        text = source(spec, results, cell.notes)
        _KERNELS[key] = load(text), cell, len(results), job.method
    kernel, cell, width, _ = _KERNELS[key]
    return kernel, cell, width


def _identity(value: Any, depth: int = 0) -> Any:
    """What tells rules apart: one made anew for each tensor has the same code, and may hold other values."""
    code = getattr(value, "__code__", None)
    if code is None:
        try:
            hash(value)
        except TypeError:
            return object()
        return value
    if depth > 4:
        return object()
    held = [cell.cell_contents for cell in value.__closure__ or ()]
    held += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    held.append(getattr(value, "__self__", None))
    return code, *(_identity(part, depth + 1) for part in held)


def numbers_of(job: Job, cell: TraceCell, stats: Stats, prefixes: Any = NONE) -> tuple[Any, ...]:
    homes: dict[str, Any] = {
        "option": lambda name, k: job.settings.shared[name],
        "each": lambda name, k: job.settings.per_model[name][k],
        "stat": lambda name, k: stats[name][k],
    }
    params = np.array([homes[kind](name, k) for kind, name, k in cell.params], dtype=np.float32)
    limit = np.iinfo(np.int64).max
    cuts = [stats[name][k] for name, k in cell.cuts]
    whole = np.array([limit if math.isinf(c) else int(c) for c in cuts], dtype=np.int64)
    keys = np.array(job.keys, dtype=np.uint64).reshape(-1, 2)
    row_params = _stacked([stats[name][k] for name, k in cell.row_params], np.float32)
    row_cuts = _stacked([stats[name][k] for name, k in cell.row_cuts], np.int64)
    return params, whole, keys, row_params, row_cuts, prefixes


def _stacked(columns: Sequence[Any], dtype: Any) -> Any:
    return np.stack(columns).astype(dtype, copy=False) if columns else np.empty((0, 0), dtype=dtype)


def scratch(name: str, shape: tuple[int, ...], dtype: Any) -> Any:
    """An array of this thread's, used again and again."""
    held = _OWN.__dict__.setdefault("held", {})
    size = math.prod(shape)
    if name not in held or held[name].size < size or held[name].dtype != dtype:
        held[name] = np.empty(size, dtype)
    return held[name][:size].reshape(shape)


def bits_of(
    job: Job, found: tuple[Kernel, TraceCell, int], stats: Stats, start: int, arrays: Sequence[Any]
) -> Any:
    """The bits of magnitudes, `(magnitudes, elements)` uint32, by a kernel of the kind `bits`.

    They are this thread's until it asks for the next.
    """
    kernel, cell, width = found
    size = len(arrays[0])
    out = scratch("bits", (width, size), np.uint32)
    numbers = numbers_of(job, cell, stats)
    kept = kept_of(job, cell, start, size)
    kernel(*arrays, kept, out, None, numbers, start, max(job.grid.cols, 1), max(size, 1))
    return out


def kept_of(job: Job, cell: TraceCell, start: int, size: int) -> Any:
    """Where a kernel notes conditions, or reads them: a stretch of the job's memory for them."""
    if not cell.notes and not cell.recalled:
        return _UNKEPT
    if job.kept is None:
        job.kept = scratch("recall", (job.grid.numel,), np.uint8)
    return job.kept[start : start + size]

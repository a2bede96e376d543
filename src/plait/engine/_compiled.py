"""Rules on a CPU, compiled: the same rule is traced once and runs over whole blocks of any tensor."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plait.engine._job import Block, Job
from plait.engine._trace import Stats, TraceCell, is_row_stat
from plait.errors import InputError
from plait.methods import Method, Order, Sums
from plait.numerics import absolute
from plait.numerics._kernel import Spec, source
from plait.numerics._kernel_cache import load

Kernel = Callable[..., Any]
Rule = Callable[[Any], Any]
Rows = Sequence[Sums | Order]
_KERNELS: dict[Any, tuple[Kernel, TraceCell, int, Method]] = {}
_SCRATCH = threading.local()
_NONE = np.empty((0, 0), dtype=np.uint32)


def compiles(job: Job) -> bool:
    """Whether this job's rules run compiled: on a CPU, in float32, without sums over rows."""
    if job.device.type != "cpu" or job.compute != torch.float32 or not job.compiled:
        return False
    row_sums = any(isinstance(s, Sums) and s.scope == "row" for s in job.method.stages(job.settings))
    return not row_sums and not job.method.whole(job.settings)


def _native(tensor: Tensor) -> np.ndarray[Any, Any]:
    """float32 as it is, bfloat16 as bits; anything else becomes float32."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    return tensor.to(torch.float32).numpy()


def _kernel(
    job: Job, kind: str, rule: Rule, stats: Stats, arrays: Sequence[Any]
) -> tuple[Kernel, TraceCell, int]:
    """The kernel of a rule, the cell that traced it, and how many expressions it gives."""
    words = tuple(
        (o.name, job.settings.shared[o.name]) for o in job.method.options if not o.per_model and not o.runtime
    )
    shape = tuple((name, len(values), is_row_stat(values)) for name, values in sorted(stats.items()))
    inputs = "".join("b" if a.dtype == np.uint16 else "f" for a in arrays)
    output = "b" if job.dtype == torch.bfloat16 else "f"
    # Rules made anew for each tensor have the same code; the method is kept, so its id stays its own.
    code = getattr(rule, "__code__", rule)
    key = id(job.method), kind, code, words, shape, inputs, output, job.has_base
    if key not in _KERNELS:
        cell = TraceCell(job, stats)
        found = rule(cell)
        results = [found] if kind == "combine" else list(found)
        counts = [len(c) for c in (cell.params, cell.cuts, cell.row_params, cell.row_cuts)]
        text = source(Spec(kind, inputs, output, *counts, ranks=tuple(cell.ranks)), results)
        _KERNELS[key] = load(text), cell, len(results), job.method
    kernel, cell, width, _ = _KERNELS[key]
    return kernel, cell, width


def _numbers(job: Job, cell: TraceCell, stats: Stats, prefixes: Any = _NONE) -> tuple[Any, ...]:
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


def _scratch(name: str, shape: tuple[int, ...], dtype: Any) -> Any:
    """An array of this thread's, used again and again."""
    held = _SCRATCH.__dict__.setdefault("held", {})
    size = math.prod(shape)
    if name not in held or held[name].size < size or held[name].dtype != dtype:
        held[name] = np.empty(size, dtype)
    return held[name][:size].reshape(shape)


class _Part:
    """Some whole chunks of a tensor, with what its rows are known to have."""

    def __init__(self, job: Job, start: int, arrays: Sequence[Any], stats: Stats) -> None:
        self.job, self.start, self.arrays, self.stats = job, start, arrays, dict(stats)
        self.size = len(arrays[0])

    def call(self, kind: str, rule: Rule, out: Any, extra: Any, prefixes: Any = _NONE) -> TraceCell:
        """Run a kernel over the part."""
        kernel, cell, _ = _kernel(self.job, kind, rule, self.stats, self.arrays)
        ranks = [self._places(k) for k in cell.ranks]
        numbers = _numbers(self.job, cell, self.stats, prefixes)
        cols, step = max(self.job.grid.cols, 1), self.job.grid.step if kind == "sums" else max(self.size, 1)
        kernel(*self.arrays, *ranks, out, extra, numbers, self.start, cols, step)
        return cell

    def bits(self, rule: Rule) -> Any:
        """The bits of the rule's magnitudes, `(magnitudes, size)`."""
        width = _kernel(self.job, "bits", rule, self.stats, self.arrays)[2]
        out = _scratch("bits", (width, self.size), np.uint32)
        self.call("bits", rule, out, None)
        return out

    def find_rows(self, rows: Rows) -> None:
        """Evaluate the stages of scope `row`."""
        for stage in rows:
            if isinstance(stage, Order):
                found = select(self.job, stage, self.bits(stage.rule), self.job.grid.cols)
                self.stats[stage.name], self.stats[f"{stage.name}_cut"] = found

    def _places(self, model: int) -> Any:
        from plait.numerics._rows import row_places

        bits = self.bits(_Magnitude(model))
        out = _scratch(f"places{model}", (self.size,), np.float32)
        cols = self.job.grid.cols
        row_places(bits[0].reshape(-1, cols), out.reshape(-1, cols))
        return out


@dataclass(frozen=True)
class _Magnitude:
    """|task vector| of one model; equal ones are the same key."""

    model: int

    def __call__(self, c: Any) -> list[Any]:
        return [absolute(c.delta[self.model])]


def select(job: Job, stage: Order, bits: Any, cols: int) -> tuple[list[Any], list[Any]]:
    """An order stage within rows of `cols` elements: thresholds and cuts, each `(rows,)`."""
    from plait.numerics._rows import row_nonzeros, row_select

    matrices = [b.reshape(-1, cols) for b in bits]
    nonzero = [row_nonzeros(m).astype(np.float64) for m in matrices]
    values, cuts = [], []
    for matrix, wanted in zip(matrices, stage.ranks(cols, nonzero, job.settings), strict=True):
        shape = len(wanted), matrix.shape[0]
        ranks = np.empty(shape, np.int64)
        for i, k in enumerate(wanted):
            ranks[i] = k
        found, places = np.empty(shape, np.float32), np.empty(shape, np.int64)
        row_select(matrix, ranks, stage.exact, found, places)
        values += list(found)
        cuts += list(places)
    return values, cuts


def _parts(job: Job, block: Block, rows: Rows, stats: Stats) -> Iterator[_Part]:
    """The block as it is, or by chunks where rows are looked at: their scratch stays in the cache."""
    start, _, tensors = block
    arrays = [_native(t) for t in tensors]
    size = len(arrays[0])
    step = job.grid.step if rows or job.method.by_row else max(size, 1)
    for first in range(0, size, step):
        part = _Part(job, start + first, [a[first : first + step] for a in arrays], stats)
        part.find_rows(rows)
        yield part


def combine(job: Job, block: Block, rows: Rows, stats: Stats, out: Tensor) -> Tensor:
    """The rule over a block, in the output's type, written into the beginning of `out` where types agree.

    Raises:
        InputError: an input holds NaN or infinity.
    """
    start, stop, tensors = block
    direct = job.dtype in (torch.bfloat16, torch.float32)
    target = out[: stop - start] if direct else torch.empty(stop - start, dtype=torch.float32)
    values = _native(target)
    largest = np.zeros(len(tensors), dtype=np.uint32)
    for part in _parts(job, block, rows, stats):
        first = part.start - start
        part.call("combine", job.method.combine, values[first : first + part.size], largest)
    if not job.allow_nan:
        _refuse(job, tensors, largest)
    return target if direct else target.to(job.dtype)


def _refuse(job: Job, tensors: Sequence[Tensor], largest: Any) -> None:
    for model, tensor, bits in zip(job.models, tensors, largest, strict=True):
        infinite = 0x7F80 if tensor.dtype == torch.bfloat16 else 0x7F800000
        if bits >= infinite:
            raise bad_value(job.name, model, nan=bits > infinite)


def bad_value(name: str, model: str, *, nan: bool) -> InputError:
    """The error for an input that is not finite."""
    return InputError(
        f"the tensor `{name}` holds {'NaN' if nan else 'an infinity'}",
        where=model,
        hint="repair or replace this model, or merge it all the same with --allow-nan",
    )


def sums(job: Job, block: Block, rule: Rule, rows: Rows, stats: Stats) -> np.ndarray[Any, Any]:
    """Sums of the rule's expressions over each chunk of a block, `(chunks, expressions)`."""
    found = []
    for part in _parts(job, block, rows, stats):
        width = _kernel(job, "sums", rule, part.stats, part.arrays)[2]
        out = np.zeros((-(-part.size // job.grid.step), width))
        part.call("sums", rule, out, None)
        found.append(out)
    return np.concatenate(found)


class Tally:
    """Histograms of a rule's magnitudes over one tensor, block by block.

    Attributes:
        zeros: how many of each magnitude are zero, after `high`.
    """

    def __init__(self, job: Job, rule: Rule) -> None:
        self.job, self.rule = job, rule
        self._out: Any = None
        self.zeros: Any = None

    def high(self, block: Block, stats: Stats) -> None:
        """Count the first 16 bits."""
        for part in _parts(self.job, block, (), stats):
            if self._out is None:
                width = _kernel(self.job, "counts", self.rule, part.stats, part.arrays)[2]
                self._out = _scratch("high", (width, 4, 1 << 16), np.uint32)
                self._out[:] = 0
                self.zeros = np.zeros(width, dtype=np.int64)
            part.call("counts", self.rule, self._out, self.zeros)

    def low(self, block: Block, stats: Stats, prefixes: Any) -> None:
        """Count the last 16 bits of those that begin with each prefix, `(magnitudes, prefixes)` uint32."""
        for part in _parts(self.job, block, (), stats):
            if self._out is None:
                self._out = _scratch("low", (*prefixes.shape, 1 << 16), np.uint32)
                self._out[:] = 0
            part.call("refine", self.rule, self._out, None, prefixes)

    def counts(self) -> Any:
        """What was counted: `(magnitudes, 65536)` after `high`, `(magnitudes, prefixes, 65536)` after `low`."""
        if self.zeros is not None:
            return self._out.sum(1, dtype=np.int64)
        return self._out.astype(np.int64)

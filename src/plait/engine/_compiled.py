"""Rules on a CPU, compiled: the same rule is traced once and runs over whole blocks of any tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plait.engine._buffers import Block, native
from plait.engine._job import Job, bad_value
from plait.engine._kernels import (
    NONE,
    Kernel,
    Rows,
    Rule,
    bits_of,
    kept_of,
    kernel_of,
    numbers_of,
    scratch,
)
from plait.engine._trace import Stats, TraceCell
from plait.methods import Order
from plait.numerics import absolute
from plait.numerics._kernel import SUMS

#: Elements that rows are looked at for together.
_UNIT = 1 << 18


class Pass:
    """One rule's way over a tensor, block by block.

    Where rows are looked at it goes chunk by chunk, so that what they need stays in the cache.

    Args:
        job: the tensor.
        kind: of the kernel.
        rule: what is computed.
        rows: stages of scope `row`, evaluated on the way.
        stats: what earlier stages found.
    """

    def __init__(self, job: Job, kind: str, rule: Rule, rows: Rows, stats: Stats) -> None:
        self.job, self.kind, self.rule, self.rows, self.stats = job, kind, rule, rows, stats
        self._by_row = bool(rows) or job.method.by_row
        self._kernels: dict[Any, tuple[Kernel, TraceCell, int]] = {}
        self._numbers: Any = None

    def over(self, block: Block, out: Any, extra: Any, prefixes: Any = NONE) -> None:
        """Run the kernel over a block; `out` is as long as the block, or holds sums or counts."""
        arrays = [slot.array for slot in block.slots]
        size = block.stop - block.start
        if not self._by_row:
            self._call(block.start, arrays, self.stats, out, extra, prefixes)
            return
        chunk = self.job.grid.step
        step = max(_UNIT // chunk, 1) * chunk
        for first in range(0, size, step):
            part = [a[first : first + step] for a in arrays]
            start = block.start + first
            places = {
                "combine": slice(first, first + step),
                "sums": slice(first // chunk, -(-(first + step) // chunk)),
            }
            kind = "sums" if self.kind in SUMS else self.kind
            own = out[places[kind]] if kind in places else out
            self._call(start, part, self._with_rows(start, part), own, extra, prefixes)

    def width(self, block: Block) -> int:
        """How many expressions the rule gives."""
        arrays = [slot.array for slot in block.slots]
        stats = self._with_rows(block.start, [a[: self.job.grid.step] for a in arrays])
        return self._kernel(self.kind, self.rule, stats, arrays)[2]

    def _call(
        self, start: int, arrays: Sequence[Any], stats: Stats, out: Any, extra: Any, prefixes: Any
    ) -> None:
        kernel, cell, _ = self._kernel(self.kind, self.rule, stats, arrays)
        if self._numbers is None or self._by_row:
            self._numbers = numbers_of(self.job, cell, stats, prefixes)
        numbers = self._numbers
        places = [self._places(start, arrays, model) for model in cell.ranks]
        size, grid = max(len(arrays[0]), 1), self.job.grid
        step = grid.step if self.kind in SUMS else size
        kept = kept_of(self.job, cell, start, len(arrays[0]))
        kernel(*arrays, *places, kept, out, extra, numbers, start, max(grid.cols, 1), step)

    def _kernel(
        self, kind: str, rule: Rule, stats: Stats, arrays: Sequence[Any]
    ) -> tuple[Kernel, TraceCell, int]:
        if (kind, rule) not in self._kernels:
            self._kernels[kind, rule] = kernel_of(self.job, kind, rule, stats, arrays)
        return self._kernels[kind, rule]

    def _bits(self, rule: Rule, stats: Stats, start: int, arrays: Sequence[Any]) -> Any:
        """The bits of a rule's magnitudes, `(magnitudes, elements)` uint32; this thread's until the next."""
        return bits_of(self.job, self._kernel("bits", rule, stats, arrays), stats, start, arrays)

    def _with_rows(self, start: int, arrays: Sequence[Any]) -> Stats:
        """What is known, and what the row stages find here."""
        found = dict(self.stats)
        for stage in self.rows:
            if isinstance(stage, Order):
                bits = self._bits(stage.rule, found, start, arrays)
                found[stage.name], found[f"{stage.name}_cut"] = select(
                    self.job, stage, bits, self.job.grid.cols
                )
        return found

    def _places(self, start: int, arrays: Sequence[Any], model: int) -> Any:
        from plait.numerics._rows import row_places

        bits = self._bits(_Magnitude(model), {}, start, arrays)
        out = scratch(f"places{model}", (bits.shape[1],), np.float32)
        cols = self.job.grid.cols
        row_places(bits[0].reshape(-1, cols), out.reshape(-1, cols))
        return out

    def combine(self, block: Block) -> Tensor:
        """The rule over a block, in the output's type; this thread's until the next block.

        Raises:
            InputError: an input holds NaN or infinity.
        """
        dtype, size = self.job.dtype, block.stop - block.start
        direct = dtype in (torch.bfloat16, torch.float32)
        memory = scratch("out", (size * 4,), np.uint8)
        target = torch.from_numpy(memory).view(dtype if direct else torch.float32)[:size]
        largest = np.zeros(len(block.slots), dtype=np.uint32)
        self.over(block, native(target), largest)
        if not self.job.allow_nan:
            _refuse(self.job, block, largest)
        return self.job.rounded(target)

    def sums(self, block: Block) -> np.ndarray[Any, Any]:
        """Sums of the rule's expressions over each chunk of a block, `(chunks, expressions)`."""
        out = np.zeros((-(-(block.stop - block.start) // self.job.grid.step), self.width(block)))
        self.over(block, out, None)
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


def _refuse(job: Job, block: Block, largest: Any) -> None:
    for model, slot, bits in zip(job.models, block.slots, largest, strict=True):
        infinite = 0x7F80 if slot.array.dtype == np.uint16 else 0x7F800000
        if bits >= infinite:
            raise bad_value(job.name, model, nan=bits > infinite)


class Tally:
    """Histograms of a rule's magnitudes over one tensor, block by block.

    Attributes:
        zeros: how many of each magnitude are zero, after `high`.
    """

    def __init__(self, job: Job, rule: Rule, stats: Stats) -> None:
        self._job, self._rule, self._stats = job, rule, stats
        self._pass: Pass | None = None
        self._out: Any = None
        self.zeros: Any = None

    def high(self, block: Block) -> None:
        """Count the first 16 bits."""
        if self._pass is None:
            self._pass = Pass(self._job, "counts", self._rule, (), self._stats)
            width = self._pass.width(block)
            self._out = scratch("high", (width, 4, 1 << 16), np.uint32)
            self._out[:] = 0
            self.zeros = np.zeros(width, dtype=np.int64)
        self._pass.over(block, self._out, self.zeros)

    def low(self, block: Block, prefixes: Any) -> None:
        """Count the last 16 bits of those that begin with each prefix, `(magnitudes, prefixes)` uint32."""
        if self._pass is None:
            self._pass = Pass(self._job, "refine", self._rule, (), self._stats)
            self._out = scratch("low", (*prefixes.shape, 1 << 16), np.uint32)
            self._out[:] = 0
        self._pass.over(block, self._out, None, prefixes)

    def counts(self) -> Any:
        """Counts: `(magnitudes, 65536)` after `high`, `(magnitudes, prefixes, 65536)` after `low`."""
        if self.zeros is not None:
            return self._out.sum(1, dtype=np.int64)
        return self._out.astype(np.int64)

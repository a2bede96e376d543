"""One output tensor's work: its inputs, streamed in blocks of whole chunks, and what a rule sees of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plait.checkpoint import LazyTensor
from plait.engine._buffers import Block, Slot, carve
from plait.engine._trace import refuse_rank
from plait.errors import InputError
from plait.methods import Method, Settings, Sums
from plait.numerics import Grid, Value, grid, row_ranks, uniform


class Stopped(Exception):
    """A worker noticed that the run was stopped."""


#: Types whose largest number sums of their own numbers may pass.
_NARROW = (
    torch.float16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
)


def bad_value(name: str, model: str, *, nan: bool) -> InputError:
    """The error for an input that is not finite."""
    return InputError(
        f"the tensor `{name}` holds {'NaN' if nan else 'an infinity'}",
        where=model,
        hint="repair or replace this model, or merge it all the same with --allow-nan",
    )


@dataclass
class Job:
    """What computing one tensor takes.

    Attributes:
        name: the output's name.
        shape: its shape.
        method: how it is merged.
        settings: the method's options for this tensor.
        tensors: the inputs: the base first where there is one, then the models in canonical order.
        models: the same, as the user named them.
        has_base: whether the first input is the base.
        keys: the generator's keys, one per model.
        compute: float32 or float64.
        dtype: the output's type.
        allow_nan: let infinities and NaN pass.
        limit: elements of a block, at most (but a chunk at least).
        hold: keep all inputs in memory after the first pass.
        memory: bytes that finding thresholds may take besides.
        device: where rules are evaluated.
        compiled: run rules as compiled loops where that is possible.
        checked: the inputs are known to be finite.
        kept: which elements of each model a rule kept, `(numel,)` uint8, one bit per model; None until asked.
        recalls: `kept` is complete: rules take their conditions from there.
        stopped: whether the run is to end now.
    """

    name: str
    shape: tuple[int, ...]
    method: Method
    settings: Settings
    tensors: Sequence[LazyTensor]
    models: Sequence[str]
    has_base: bool
    keys: Sequence[tuple[int, int]]
    compute: torch.dtype
    dtype: torch.dtype
    allow_nan: bool = False
    limit: int = 1 << 20
    hold: bool = True
    memory: int = 1 << 28
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    compiled: bool = False
    stopped: Callable[[], bool] = lambda: False
    checked: bool = False
    kept: Any = None
    recalls: bool = False
    _held: list[Block] = field(default_factory=list)

    @cached_property
    def grid(self) -> Grid:
        stages = self.method.stages(self.settings)
        by_row = self.method.by_row or any(stage.scope == "row" for stage in stages)
        return grid(self.shape, by_row=by_row)

    @property
    def limit_of_chunks(self) -> int:
        """Elements of the largest block: whole chunks."""
        return max(self.limit // self.grid.step, 1) * self.grid.step

    def blocks(self) -> Iterator[Block]:
        """The inputs, block by block.

        A block is the caller's until it asks for the next one, unless the job holds its inputs.

        Raises:
            Stopped: the run is to end now.
        """
        if self._held:
            for block in self._held:
                self._go_on()
                yield block
            return
        cut = self.grid
        length = cut.numel if self.hold else min(self.limit_of_chunks, cut.numel)
        memory = carve([(length, tensor.dtype) for tensor in self.tensors])
        blocks: dict[int, Block] = {}
        for start, stop in cut.blocks(self.limit):
            if self.hold or stop - start not in blocks:
                first = start if self.hold else 0
                parts = [whole[first : first + stop - start] for whole in memory]
                slots = [Slot(tensor, part) for tensor, part in zip(self.tensors, parts, strict=True)]
                blocks[start if self.hold else stop - start] = Block(start, stop, slots)
            self._go_on()
            block = blocks[start if self.hold else stop - start]
            block.start, block.stop = start, stop
            block.read()
            yield block
        if self.hold:
            self._held = list(blocks.values())

    def _go_on(self) -> None:
        if self.stopped():
            raise Stopped

    def piece(self, start: int, stop: int) -> Block:
        """Any stretch of the inputs, in memory of its own."""
        block = Block(start, stop, [Slot(t, torch.empty(stop - start, dtype=t.dtype)) for t in self.tensors])
        block.read()
        return block

    @property
    def passes(self) -> int:
        """How often the inputs are gone through, for what is found in this tensor alone."""
        found = [stage for stage in self.method.stages(self.settings) if stage.scope == "tensor"]
        return 1 + sum(1 if isinstance(stage, Sums) else 3 for stage in found)

    @property
    def notes(self) -> bool:
        """Whether there is room to note which elements of each model a rule kept."""
        return self.settings.models <= 8 and self.grid.numel <= self.memory

    def release(self) -> None:
        """Let go of what was held."""
        self._held = []
        self.kept, self.recalls = None, False

    def chunks(self, block: Block) -> Iterator[tuple[int, int, list[Tensor]]]:
        """The block's chunks, each `(start, stop, values)` with values `(rows, cols)` in the compute type."""
        start, stop, inputs = block.start, block.stop, block.inputs
        cut = self.grid
        for first in range(start, stop, cut.step):
            last = min(first + cut.step, stop)
            width = cut.cols if cut.whole_rows and cut.cols else last - first
            values = [t[first - start : last - start].to(self.device, self.compute) for t in inputs]
            self.check(values)
            yield first, last, [v.view(-1, width) for v in values]

    def rounded(self, values: Tensor) -> Tensor:
        """The values in the output's type; those of finite inputs must be finite, and in its range."""
        if self.allow_nan or not values.numel():
            return values.to(self.dtype)
        if self.dtype in _NARROW:
            info = torch.finfo(self.dtype)
            # what is less than half a step above the largest number rounds down to it
            limit = info.max + info.eps * 2.0 ** math.floor(math.log2(info.max)) / 2
            if bool((values.abs() >= limit).any()):
                name = str(self.dtype).removeprefix("torch.")
                raise InputError(
                    f"merged, the tensor `{self.name}` has values beyond the range of {name}",
                    hint="write a wider type (`dtype: bfloat16`), or let such values pass with --allow-nan",
                )
        # the sum is quick to have, and not finite if one of them is not
        if not math.isfinite(float(values.sum())) and not bool(torch.isfinite(values).all()):
            kind = "NaN" if bool(torch.isnan(values).any()) else "infinities"
            raise InputError(
                f"merged, the tensor `{self.name}` has {kind}, though all inputs are finite",
                hint="look for options that are far too large, or let such values pass with --allow-nan",
            )
        return values.to(self.dtype)

    def check(self, values: Sequence[Tensor]) -> None:
        """Refuse NaN and infinity."""
        if self.allow_nan or self.checked:
            return
        for model, value in zip(self.models, values, strict=True):
            if not bool(torch.isfinite(value).all()):
                raise bad_value(self.name, model, nan=bool(torch.isnan(value).any()))


class BlockCell:
    """A `Cell` over one chunk: torch tensors `(rows, cols)`, numbers as 0-d tensors.

    Over a whole tensor they have the tensor's own shape.
    """

    def __init__(
        self, job: Job, start: int, stop: int, values: Sequence[Tensor], stats: Mapping[str, Sequence[Any]]
    ) -> None:
        self.job, self._start, self._stop = job, start, stop
        self.stats = stats
        self._shape = tuple(values[0].shape)
        self._inputs = values
        self._made: dict[tuple[str, int], Tensor] = {}
        self._delta: tuple[Value, ...] | None = None
        self.base: Value = values[0] if job.has_base else None
        self.models: tuple[Value, ...] = tuple(values[1:] if job.has_base else values)

    def double(self) -> BlockCell:
        """The same cell over float64."""
        return BlockCell(self.job, self._start, self._stop, [v.double() for v in self._inputs], self.stats)

    @property
    def delta(self) -> tuple[Value, ...]:
        if self._delta is None:
            self._delta = tuple(x - self.base for x in self.models)
        return self._delta

    def _number(self, value: Any) -> Value:
        if isinstance(value, np.ndarray) and value.ndim:
            return torch.from_numpy(value).to(self.job.device, self.job.compute)[:, None]
        return torch.tensor(float(value), dtype=self.job.compute, device=self.job.device)

    def option(self, name: str) -> Any:
        option = self.job.method.option(name)
        value = self.job.settings.shared[name]
        return self._number(value) if option is not None and option.runtime else value

    def each(self, name: str) -> tuple[Value, ...]:
        return tuple(self._number(value) for value in self.job.settings.per_model[name])

    def stat(self, name: str) -> tuple[Value, ...]:
        if name.endswith("_cut"):
            return tuple(self.stats[name])
        return tuple(self._number(value) for value in self.stats[name])

    def has(self, name: str) -> bool:
        return name in self.stats

    def uniform(self, model: int) -> Value:
        if ("uniform", model) not in self._made:
            drawn = torch.from_numpy(uniform(self.job.keys[model], self._start, self._stop))
            self._made["uniform", model] = drawn.to(self.job.device, self.job.compute).view(self._shape)
        return self._made["uniform", model]

    def rank(self, model: int) -> Value:
        refuse_rank(self.job.method)
        if ("rank", model) not in self._made:
            width = max(self._shape[-1], 1) if self._shape else 1
            ranks = row_ranks(self.delta[model].abs().reshape(-1, width))
            self._made["rank", model] = ranks.view(self._shape)
        return self._made["rank", model]

    def recall(self, model: int, condition: Callable[[], Value]) -> Value:
        return condition()

    def before(self, cut: Any) -> Value:
        device = self.job.device
        if isinstance(cut, np.ndarray) and cut.ndim:
            limits = torch.from_numpy(cut).to(device)[:, None]
            return torch.arange(self._shape[1], device=device)[None, :] < limits
        return torch.arange(self._start, self._stop, device=device).view(self._shape) < float(cut)

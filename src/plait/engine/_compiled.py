"""Rules on a CPU, compiled: the same rule is traced once and runs over whole blocks of any tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plait.engine._job import Block, Job
from plait.errors import InputError
from plait.methods import Method
from plait.numerics import Expr, Value
from plait.numerics._kernel import Spec, load, source

Stats = Mapping[str, Sequence[Any]]
_KERNELS: dict[Any, tuple[Callable[..., Any], TraceCell, Method]] = {}


class TraceCell:
    """A `Cell` of expressions; it notes which numbers the rule asked for, in order."""

    def __init__(self, job: Job, stats: Stats) -> None:
        self._job, self._stats = job, stats
        inputs = [Expr("input", (i,)) for i in range(len(job.tensors))]
        self.base: Value = inputs[0] if job.has_base else None
        self.models: tuple[Value, ...] = tuple(inputs[1:] if job.has_base else inputs)
        self.delta: tuple[Value, ...] = (
            tuple(x - self.base for x in self.models) if self.base is not None else ()
        )
        #: Where each parameter's value is found: ("option" | "each" | "stat", name, index).
        self.params: list[tuple[str, str, int]] = []
        self.cuts: list[tuple[str, int]] = []

    def _param(self, where: tuple[str, str, int]) -> Expr:
        if where not in self.params:
            self.params.append(where)
        return Expr("param", (self.params.index(where),))

    def option(self, name: str) -> Any:
        option = self._job.method.option(name)
        if option is not None and option.runtime:
            return self._param(("option", name, 0))
        return self._job.settings.shared[name]

    def each(self, name: str) -> tuple[Value, ...]:
        return tuple(self._param(("each", name, k)) for k in range(self._job.settings.models))

    def stat(self, name: str) -> tuple[Value, ...]:
        count = len(self._stats[name])
        if name.endswith("_cut"):
            return tuple((name, k) for k in range(count))
        return tuple(self._param(("stat", name, k)) for k in range(count))

    def has(self, name: str) -> bool:
        return name in self._stats

    def uniform(self, model: int) -> Value:
        return Expr("uniform", (model,))

    def rank(self, model: int) -> Value:
        raise NotImplementedError("ranks are not compiled")

    def before(self, cut: Any) -> Value:
        if cut not in self.cuts:
            self.cuts.append(cut)
        return Expr("before", (self.cuts.index(cut),), boolean=True)


def compiles(job: Job) -> bool:
    """Whether this job's rules run compiled: on a CPU, in float32, and not by rows."""
    simple = job.device.type == "cpu" and job.compute == torch.float32
    stages = job.method.stages(job.settings)
    by_row = job.method.by_row or any(stage.scope == "row" for stage in stages)
    return job.compiled and simple and not by_row and not job.method.whole(job.settings)


def _native(tensor: Tensor) -> np.ndarray[Any, Any]:
    """float32 as it is, bfloat16 as bits; anything else becomes float32."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    return tensor.to(torch.float32).numpy()


def _kernel(
    job: Job, kind: str, rule: Callable[[Any], Any], stats: Stats, arrays: Sequence[Any]
) -> tuple[Callable[..., Any], TraceCell]:
    words = tuple(
        (o.name, job.settings.shared[o.name]) for o in job.method.options if not o.per_model and not o.runtime
    )
    shape = tuple((name, len(values)) for name, values in sorted(stats.items()))
    inputs = "".join("b" if a.dtype == np.uint16 else "f" for a in arrays)
    output = "b" if job.dtype == torch.bfloat16 else "f"
    # Rules made anew for each tensor have the same code; the method is kept, so its id stays its own.
    code = getattr(rule, "__code__", rule)
    key = id(job.method), kind, code, words, shape, inputs, output, job.has_base
    if key not in _KERNELS:
        cell = TraceCell(job, stats)
        found = rule(cell)
        results = [found] if kind == "combine" else list(found)
        text = source(Spec(kind, inputs, output), results, len(cell.params), len(cell.cuts))
        _KERNELS[key] = load(text), cell, job.method
    kernel, cell, _ = _KERNELS[key]
    return kernel, cell


def _numbers(job: Job, cell: TraceCell, stats: Stats) -> tuple[Any, Any, Any]:
    homes: dict[str, Any] = {
        "option": lambda name, k: job.settings.shared[name],
        "each": lambda name, k: job.settings.per_model[name][k],
        "stat": lambda name, k: stats[name][k],
    }
    params = np.asarray([float(homes[kind](name, k)) for kind, name, k in cell.params], dtype=np.float32)
    limit = np.iinfo(np.int64).max
    cuts = [stats[name][k] for name, k in cell.cuts]
    whole = np.asarray([limit if math.isinf(c) else int(c) for c in cuts], dtype=np.int64)
    keys = np.asarray([list(key) for key in job.keys], dtype=np.uint64).reshape(-1, 2)
    return params, whole, keys


def combine(job: Job, block: Block, stats: Stats) -> Tensor:
    """The rule over a block, in the output's type.

    Raises:
        InputError: an input holds NaN or infinity.
    """
    start, stop, tensors = block
    arrays = [_native(t) for t in tensors]
    kernel, cell = _kernel(job, "combine", job.method.combine, stats, arrays)
    bf16 = job.dtype == torch.bfloat16
    out = torch.empty(stop - start, dtype=torch.bfloat16 if bf16 else torch.float32)
    largest = np.zeros(len(arrays), dtype=np.uint32)
    kernel(*arrays, _native(out), largest, *_numbers(job, cell, stats), start, max(stop - start, 1))
    if not job.allow_nan:
        _refuse(job, arrays, largest)
    return out if out.dtype == job.dtype else out.to(job.dtype)


def _refuse(job: Job, arrays: Sequence[Any], largest: Any) -> None:
    for model, array, bits in zip(job.models, arrays, largest, strict=True):
        infinite = 0x7F80 if array.dtype == np.uint16 else 0x7F800000
        if bits >= infinite:
            raise bad_value(job.name, model, nan=bits > infinite)


def bad_value(name: str, model: str, *, nan: bool) -> InputError:
    """The error for an input that is not finite."""
    return InputError(
        f"the tensor `{name}` holds {'NaN' if nan else 'an infinity'}",
        where=model,
        hint="repair or replace this model, or merge it all the same with --allow-nan",
    )


def sums(job: Job, block: Block, rule: Callable[[Any], Any], stats: Stats) -> np.ndarray[Any, Any]:
    """Sums of the rule's expressions over each chunk of a block, `(chunks, expressions)`."""
    start, stop, tensors = block
    arrays = [_native(t) for t in tensors]
    kernel, cell = _kernel(job, "sums", rule, stats, arrays)
    step = job.grid.step
    out = np.zeros((-(-(stop - start) // step), len(list(rule(cell)))))
    kernel(*arrays, out, np.zeros(1, np.uint32), *_numbers(job, cell, stats), start, step)
    return out


def counts(
    job: Job, block: Block, rule: Callable[[Any], Any], stats: Stats
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Histograms of the first 16 bits of the rule's magnitudes, and how many are zero."""
    start, stop, tensors = block
    arrays = [_native(t) for t in tensors]
    kernel, cell = _kernel(job, "counts", rule, stats, arrays)
    width = len(list(rule(cell)))
    out = np.zeros((width, 2, 1 << 16), dtype=np.uint32)
    zeros = np.zeros(width, dtype=np.int64)
    kernel(*arrays, out, zeros, *_numbers(job, cell, stats), start, max(stop - start, 1))
    return out.sum(1, dtype=np.int64), zeros


def refine(
    job: Job, block: Block, rule: Callable[[Any], Any], stats: Stats, prefixes: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Histograms of the last 16 bits for each prefix, `(magnitudes, prefixes, 65536)`."""
    start, stop, tensors = block
    arrays = [_native(t) for t in tensors]
    kernel, cell = _kernel(job, "refine", rule, stats, arrays)
    out = np.zeros((*prefixes.shape, 1 << 16), dtype=np.uint32)
    params, cuts, _ = _numbers(job, cell, stats)
    kernel(*arrays, out, np.zeros(1, np.uint32), params, cuts, prefixes, start, max(stop - start, 1))
    return out.astype(np.int64)

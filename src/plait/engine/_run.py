"""The run: stages over the whole model first, then every tensor, largest first, on a pool of threads."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from plait.engine._compute import all_or_none, finish_sums, merged, order_stats, tensor_stages
from plait.engine._job import Job, Stopped
from plait.engine._limits import cores, memory_budget, one_torch_thread
from plait.engine._matrix import Room, held_bytes
from plait.engine._plan import Output, Plan
from plait.engine._stages import OrderSearch, sum_partials
from plait.errors import InputError, PlaitError
from plait.methods import Method, Order, Sums
from plait.numerics import stream_key

_COPY = 4 << 20
#: Elements of a block, at most: system calls and Python cost less than a larger cache would win.
_BLOCK = 1 << 20


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        done_bytes: bytes of output and stages behind it.
        total_bytes: bytes of output and stages in all.
        tensors_done: finished tensors.
        tensors_total: all tensors.
    """

    done_bytes: int = 0
    total_bytes: int = 0
    tensors_done: int = 0
    tensors_total: int = 0


#: Takes a tensor's values as they come: output, first element, flat values.
Sink = Callable[[Output, int, Tensor], None]


@dataclass
class Runner:
    """Runs a plan into a sink.

    Attributes:
        plan: what to run.
        sink: takes the values.
        finished: called when a tensor is complete.
        keep_stage: called with a stage's results over the whole model.
        stages: such results that are known already.
        skip: tensors that are complete already.
        report: told of progress.
    """

    plan: Plan
    sink: Sink
    finished: Callable[[Output], None] = lambda output: None
    keep_stage: Callable[[str, Any], None] = lambda name, stats: None
    stages: Mapping[str, Any] = field(default_factory=dict)
    skip: frozenset[str] = frozenset()
    report: Callable[[Progress], None] | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _count: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        """Compute every tensor that is not skipped.

        Raises:
            InputError: an input is at fault.
        """
        options = self.plan.options
        self.threads = options.threads or cores()
        whole = memory_budget(options.memory)
        self.budget = whole // self.threads
        self.room = Room(whole)
        self.progress = Progress(tensors_total=len(self.plan.outputs))
        self.progress.total_bytes = sum(o.nbytes for o in self.plan.outputs) * self.plan.passes
        with one_torch_thread():
            with _blamed(self.plan.method, None):
                known = self._model_stages()
            todo = [o for o in self.plan.outputs if o.name not in self.skip]
            for output in self.plan.outputs:
                if output.name in self.skip:
                    self._advance(output.nbytes, 1)
            todo.sort(key=lambda o: (-o.nbytes, o.name))
            self._each(todo, lambda output: self._tensor(output, known))

    def _each(self, outputs: Sequence[Output], work: Callable[[Output], None]) -> None:
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="plait")
        pending: set[Future[None]] = set()
        waiting = iter(outputs)
        try:
            while True:
                for output in waiting:
                    pending.add(pool.submit(self._guarded, work, output))
                    if len(pending) > 2 * self.threads:
                        break
                if not pending:
                    return
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
        except BaseException:
            self._stop.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _guarded(self, work: Callable[[Output], None], output: Output) -> None:
        with _blamed(self.plan.method, f"tensor `{output.name}`"):
            work(output)

    def _advance(self, nbytes: int, tensors: int = 0) -> None:
        with self._count:
            self.progress.done_bytes += nbytes
            self.progress.tensors_done += tensors
            if self.report is not None:
                self.report(self.progress)

    def _tensor(self, output: Output, known: Mapping[str, Any]) -> None:
        if output.settings is None:
            self._copy(output)
        else:
            job = self.job(output)
            held = held_bytes(job.method, job.settings, job.tensors, job.compute)
            # what is streamed fits all threads at once, so it waits for nothing but tensors that are held
            with self.room.take(self.budget if held is None else held):
                for start, values in merged(job, self._known(known, output)):
                    self._put(output, start, values)
        self.finished(output)
        self._advance(0, 1)

    def _copy(self, output: Output) -> None:
        total = math.prod(output.shape)
        step = max(_COPY // output.dtype.itemsize, 1)
        for start in range(0, total, step):
            self._put(output, start, output.inputs[0].read_flat(start, min(start + step, total)))

    def _put(self, output: Output, start: int, values: Tensor) -> None:
        if self._stop.is_set():
            raise Stopped
        self.sink(output, start, values)
        self._advance(values.numel() * values.dtype.itemsize)

    def job(self, output: Output) -> Job:
        """The work of one merged tensor."""
        settings = output.settings
        if settings is None:
            raise ValueError(output.name)
        plan = self.plan
        models = output.models[1:] if output.has_base else output.models
        width = sum(t.dtype.itemsize for t in output.inputs)
        numel = math.prod(output.shape)
        job = Job(
            name=output.name,
            shape=output.shape,
            method=plan.method,
            settings=settings,
            tensors=output.inputs,
            models=output.models,
            has_base=output.has_base,
            keys=[stream_key(plan.recipe.seed, plan.recipe.identity(m), output.name) for m in models],
            compute=plan.compute,
            dtype=output.dtype,
            allow_nan=plan.options.allow_nan,
            limit=max(min(_BLOCK, self.budget // (4 * (width + output.dtype.itemsize))), 1),
            hold=False,
            memory=self.budget // 3,
            device=torch.device(plan.options.device),
            compiled=plan.compiled,
            stopped=self._stop.is_set,
        )
        # Another pass over memory costs less than half of reading the files again, cached as they may be.
        job.hold = numel * width <= self.budget // 2 and job.passes > 1
        return job

    def _known(self, known: Mapping[str, Any], output: Output) -> dict[str, Any]:
        """Model-wide results as one tensor sees them: its own cut among equals."""
        found = {name: values for name, values in known.items() if not name.endswith("@")}
        for name, cuts in known.items():
            if name.endswith("@"):
                found[name[:-1]] = cuts.get(output.name, found.get(name[:-1]))
        return found

    def _model_stages(self) -> dict[str, Any]:
        """Stages over the whole model, in order; each streams over all tensors."""
        merged_outputs = [o for o in self.plan.outputs if o.settings is not None and math.prod(o.shape)]
        known: dict[str, Any] = {}
        if not merged_outputs:
            return known
        first = self.job(merged_outputs[0])
        for stage in first.method.stages(first.settings):
            if stage.scope != "model":
                continue
            if stage.name in self.stages:
                known.update(self.stages[stage.name])
                self._advance(
                    sum(o.nbytes for o in self.plan.outputs) * (1 if isinstance(stage, Sums) else 2)
                )
                continue
            if isinstance(stage, Sums):
                found = self._model_sums(stage, merged_outputs, known)
            else:
                found = self._model_order(stage, merged_outputs, known)
            self.keep_stage(stage.name, found)
            known.update(found)
        return known

    def _model_sums(self, stage: Sums, outputs: Sequence[Output], known: Mapping[str, Any]) -> dict[str, Any]:
        parts: dict[str, list[float]] = {}

        def work(output: Output) -> None:
            job = self._staged(output)
            stats, rows = tensor_stages(job, self._known(known, output), until=stage)
            parts[output.name] = sum_partials(job, stage, rows, stats)
            self._advance(output.nbytes)

        self._each(outputs, work)
        columns = zip(*(p for p in parts.values() if p), strict=True)
        sums = [math.fsum(column) for column in columns]
        found = finish_sums(self._staged(outputs[0]), stage, sums)
        return {name: [float(v) for v in values] for name, values in found.items()}

    def _model_order(
        self, stage: Order, outputs: Sequence[Output], known: Mapping[str, Any]
    ) -> dict[str, Any]:
        jobs = {o.name: self._staged(o) for o in outputs}
        search = OrderSearch(stage, list(jobs.values()))
        total = sum(math.prod(o.shape) for o in outputs)
        for level in range(search.levels):
            counts: dict[tuple[int, int], Any] = {}

            def work(output: Output, level: int = level, counts: dict[tuple[int, int], Any] = counts) -> None:
                job = jobs[output.name]
                stats, rows = tensor_stages(job, self._known(known, output), until=stage)
                found = search.count(job, level, rows, stats)
                with self._count:
                    for key, value in found.items():
                        counts[key] = counts[key] + value if key in counts else value
                self._advance(output.nbytes)

            self._each(outputs, work)
            if not level:
                search.start(counts, total, next(iter(jobs.values())).settings)
            search.refine(counts)
        thresholds = search.thresholds()
        found: dict[str, Any] = order_stats(stage, thresholds, all_or_none(thresholds))
        if search.needs_cut():
            found[f"{stage.name}_cut@"] = self._model_cuts(search, jobs, known)
        return found

    def _model_cuts(
        self, search: OrderSearch, jobs: Mapping[str, Job], known: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Each tensor's cut among equals; tensors count in the order of their names."""
        seen = [0] * len(search.thresholds())
        cuts: dict[str, Any] = {}
        for name in sorted(jobs):
            stats, rows = tensor_stages(jobs[name], dict(known), until=search.stage)
            cuts[name], seen = search.equal_positions(jobs[name], rows, stats, seen)
        return cuts

    def _staged(self, output: Output) -> Job:
        """A job for a stage over the whole model: nothing is held between tensors."""
        job = self.job(output)
        job.hold = False
        return job


@contextlib.contextmanager
def _blamed(method: Method, where: str | None) -> Iterator[None]:
    """What a method from outside raises is told as its fault, not as plait's."""
    try:
        yield
    except InputError as error:
        if error.where is not None or where is None:
            raise
        raise error.located(lambda _: where) from error
    except (PlaitError, OSError, MemoryError, Stopped):
        raise
    except Exception as error:
        if getattr(method.combine, "__module__", "").startswith("plait."):
            raise
        what = f"the method `{method.name}` fails: {type(error).__name__}: {error}"
        raise InputError(what, where=where) from error

"""From a plan to a checkpoint: in a folder, or in memory."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import torch
from blake3 import blake3
from torch import Tensor

from plait.checkpoint import open_checkpoint
from plait.engine._build import build_plan
from plait.engine._function import as_method
from plait.engine._identity import run_identity
from plait.engine._limits import RunOptions, cores
from plait.engine._lock import locked, work_folder
from plait.engine._plan import Output, Plan
from plait.engine._provenance import write_beside, write_provenance
from plait.engine._publish import publish, restore
from plait.engine._run import Progress, Runner
from plait.engine._target import check_target, find_target, is_filled, is_up_to_date
from plait.engine._verify import verify
from plait.engine._work import Work
from plait.errors import InputError, PlaitError, PlaitWarning
from plait.methods import METHODS, Method
from plait.recipe import build_recipe

Report = Callable[[Progress], None]


@dataclass(frozen=True)
class MergeResult:
    """What a run did.

    Attributes:
        path: the output.
        tensors: number of tensors.
        bytes_read: bytes of inputs.
        bytes_written: bytes of weight files.
        seconds: wall time.
        unchanged: nothing was done, as the target was up to date.
    """

    path: str
    tensors: int
    bytes_read: int
    bytes_written: int
    seconds: float
    unchanged: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def run(
    plan: Plan, out: str | os.PathLike[str], options: RunOptions | None = None, progress: Report | None = None
) -> MergeResult:
    """Run a plan into a folder.

    Args:
        plan: the plan.
        out: the folder; absent or empty, unless `overwrite`.
        options: how to run; those of the plan if None.
        progress: told how far it is.

    Raises:
        InputError: an input or the target is at fault; the target is untouched.
    """
    options = options or plan.options
    started, target = time.perf_counter(), find_target(out)
    restore(target)
    if (options.if_changed or options.resume) and is_up_to_date(plan, target):
        if work_folder(target).exists():  # of a run that was killed when all was done
            with locked(target):
                pass
        return MergeResult(str(out), len(plan.outputs), 0, 0, time.perf_counter() - started, unchanged=True)
    check_target(plan, target, options)
    _run_locked(plan, target, options, progress)
    seconds = time.perf_counter() - started
    return MergeResult(str(out), len(plan.outputs), plan.bytes_read, plan.bytes_written, seconds)


def _run_locked(plan: Plan, target: Path, options: RunOptions, progress: Report | None) -> None:
    known, done = work_folder(target).exists(), False
    with locked(target) as held:
        held.keep = known
        check_target(plan, target, options)  # again: another run may have finished meanwhile
        work = Work(held.folder)
        # Bad input leaves nothing behind, unless there was something to resume before.
        held.keep = known and options.resume
        try:
            threads = options.threads or cores()
            work.begin(run_identity(plan), plan.shards, resume=options.resume, threads=threads)
            with _stages(plan, held.folder, progress):
                write_beside(plan, held.folder / "out")
                _fill(plan, work, progress)
            work.close()
            write_provenance(plan, held.folder / "out", work.done)
            replaced = is_filled(target)
            if replaced:
                _verified(held.folder / "out")
            held.keep = True
            publish(held.folder / "out", target, replace=replaced and options.overwrite)
            held.keep, done = False, True
        except PlaitError:
            raise
        except BaseException:
            held.keep = not done
            raise
        finally:
            work.close()


def _fill(plan: Plan, work: Work, progress: Report | None) -> None:
    place = {name: (shard.name, start) for shard in plan.shards for name, (start, _) in shard.offsets.items()}
    hashers: dict[str, Any] = {}

    def sink(output: Output, start: int, values: Tensor) -> None:
        file, offset = place[output.name]
        # numpy's stubs do not say that an array is a buffer.
        raw = cast("Any", values.contiguous().view(torch.uint8).numpy())
        data = memoryview(raw) if values.numel() else memoryview(b"")
        hasher = hashers.get(output.name)
        if hasher is None:
            hasher = hashers[output.name] = blake3()
        hasher.update(data)
        work.write(file, offset + start * output.dtype.itemsize, data)

    def finished(output: Output) -> None:
        work.finish_tensor(output.name, hashers.pop(output.name, blake3()).hexdigest())

    skip = frozenset(work.done)
    stages = dict(work.stages)
    Runner(plan, sink, finished, work.finish_stage, stages, skip, progress).run()


@contextlib.contextmanager
def _stages(plan: Plan, folder: Path, progress: Report | None) -> Iterator[None]:
    """Run nested recipes into the work folder, and open what they made."""
    for index, stage in enumerate(plan.stages):
        path = folder / f"stage-{index}"
        nested = replace(stage.plan.options, resume=True, if_changed=True, overwrite=True)
        run(stage.plan, path, nested, progress)
        stage.result, stage.files = open_checkpoint(str(path)), path
    try:
        yield
    finally:
        for stage in plan.stages:
            stage.result = None


def _verified(folder: Path) -> None:
    report = verify(folder)
    if not report.ok:
        raise PlaitError(f"{folder}: the new output is damaged: {'; '.join(report.problems)}")


def merge(
    models: Sequence[object] | Mapping[str, object],
    *,
    base: object | None = None,
    method: Any = "linear",
    out: str | os.PathLike[str] | None = None,
    options: RunOptions | None = None,
    dtype: object | None = None,
    tokenizer: Any = None,
    chat_template: str | None = None,
    exclude: str | Sequence[str] = (),
    keep: str | Sequence[str] = (),
    seed: int = 0,
    conventions: Any = "paper",
    **parameters: object,
) -> dict[str, Tensor] | Path:
    """Merge models.

    Args:
        models: paths, hub ids, modules, state dicts or checkpoints; a mapping names them.
        base: the base model.
        method: a method's name, parts of a pipeline, a `Method`, or a function of a cell or of
            `(models, base)`.
        out: the folder to write; None keeps the result in memory.
        options: memory, threads, device and so on.
        dtype: the output's type; None keeps the base's.
        tokenizer: how vocabularies are aligned.
        chat_template: the output's chat template.
        exclude: globs on tensor names to leave out.
        keep: globs on tensor names to copy from the base, or the first model that has them.
        seed: seed of random methods.
        conventions: `paper` or `mergekit`.
        parameters: the method's options (`density=0.3`, `weight=[0.5, 0.5]`); `lambda_` stands for `lambda`.

    Returns:
        Name → tensor, or the folder.

    Raises:
        InputError: something given is at fault; all that is found is named.

    Warns:
        PlaitWarning: what the plan notes, such as a parameter without effect.
    """
    given = {name.rstrip("_"): value for name, value in parameters.items()}
    _refuse_run_options(given)
    per_model = {"weight", "density", "gamma", "epsilon", "scale"}
    if isinstance(method, str) and method in METHODS:
        per_model = {option.name for option in METHODS[method].options if option.per_model}
    elif callable(method) or isinstance(method, Method):
        per_model = {option.name for option in as_method(method).options if option.per_model}
    recipe = build_recipe(
        models,
        method=method.combine if isinstance(method, Method) else method,
        base=base,
        parameters=given,
        per_model=per_model,
        dtype=dtype,
        tokenizer=tokenizer,
        chat_template=chat_template,
        exclude=exclude,
        keep=keep,
        seed=seed,
        conventions=conventions,
    )
    if isinstance(method, Method):
        recipe = replace(recipe, method=method)
    plan = build_plan(recipe, options)
    for text in plan.warnings:
        warnings.warn(text, PlaitWarning, stacklevel=2)
    if out is not None:
        run(plan, out)
        return Path(out)
    return in_memory(plan)


def _refuse_run_options(given: Mapping[str, object]) -> None:
    known = {option.name for method in METHODS.values() for option in method.options}
    wrong = [name for name in given if name in {field.name for field in fields(RunOptions)} - known]
    if wrong:
        said = ", ".join(f"{name}={given[name]!r}" for name in wrong)
        what = f"{', '.join(f'`{name}`' for name in wrong)} is about the run, not the method"
        raise InputError(what, where="the merge", hint=f"options=plait.RunOptions({said})")


def in_memory(plan: Plan, progress: Report | None = None) -> dict[str, Tensor]:
    """Run a plan and keep its tensors."""
    result = {o.name: torch.empty(math.prod(o.shape), dtype=o.dtype) for o in plan.outputs}

    def sink(output: Output, start: int, values: Tensor) -> None:
        result[output.name][start : start + values.numel()] = values

    with contextlib.ExitStack() as stack:
        if plan.stages:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="plait-")))
            stack.enter_context(_stages(plan, folder, progress))
        Runner(plan, sink, report=progress).run()
    return {o.name: result[o.name].view(o.shape) for o in plan.outputs}

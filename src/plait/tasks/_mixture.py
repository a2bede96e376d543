"""A mixture: several tasks that one model learns at once, each with its own head, loss and metric.

A batch of a mixture holds examples of all its tasks, in the shares that were asked for on average, and a
column that says whose each example is. The body sees them alike; every head gives its outputs for all of
them (heads are small beside bodies, and tensors of one shape can be stacked), and an example's own counts.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence

import torch

from plait.errors import InputError
from plait.tasks._examples import columns_of
from plait.tasks._joint import Heads, MixedLoss, mean_metric
from plait.tasks._losses import TASK
from plait.tasks._mixed import Mixed
from plait.tasks._task import SPLITS, Task

#: More examples than this in an epoch (shares far from the tasks' sizes) could not be shuffled in memory.
_MOST = 100_000_000


def mixture(
    tasks: Sequence[Task], weights: Sequence[float] | None = None, *, name: str | None = None
) -> Task:
    """One task of several, for a member that learns them all (joint, or multi-task, training).

    An epoch holds every example at least once; those of tasks whose share is above that of their size are
    repeated. Its metric is the mean of the tasks' own. A split is that of those tasks that have it.

    Args:
        tasks: that share how a batch meets a model, and the columns of a batch.
        weights: the share of each task among the examples, of any sum; as many as there are examples if None.
        name: of the mixture; `a + b` if None.

    Returns:
        the task; its head (if tasks have heads) is a `Heads`.

    Raises:
        InputError: tasks that can't be mixed, or weights that are no shares.
    """
    name = " + ".join(task.name for task in tasks) if name is None else name
    where = f"mixture `{name}`"
    _check(tasks, weights, where)
    splits = {}
    for split in SPLITS:
        having = [place for place, task in enumerate(tasks) if split in task.splits]
        if split == "train" and len(having) < len(tasks):
            bare = next(task for task in tasks if split not in task.splits)
            raise InputError(f"task `{bare.name}` has no split `train`", where=where)
        parts = [tasks[place].split(split) for place in having]
        lengths = [len(part) for part in parts]
        if weights is not None and split == "train":
            lengths = _lengths(lengths, [float(weight) for weight in weights], where)
        if parts:
            splits[split] = Mixed(tuple(parts), tuple(lengths), tuple(having))
    headed = any(task.head is not None for task in tasks)
    losses = tuple(task.loss for task in tasks)
    alike = not headed and all(loss == losses[0] for loss in losses)
    return Task(
        name,
        splits,
        loss=losses[0] if alike else MixedLoss(losses, headed),
        metric=mean_metric([task.metric for task in tasks], headed, [task.loss for task in tasks]),
        head=Heads(tasks) if headed else None,
        meet=tasks[0].meet,
        semi_synthetic=any(task.semi_synthetic for task in tasks),
        about="; ".join(task.about for task in tasks if task.about),
    )


def _lengths(counts: Sequence[int], shares: Sequence[float], where: str) -> list[int]:
    """How many examples of each task make an epoch: in these shares, and every one at least once."""
    scale = max(count / share for count, share in zip(counts, shares, strict=True))
    if not math.isfinite(scale * sum(shares)) or scale * sum(shares) > _MOST:
        hint = "give tasks of a small share fewer examples, or larger weights"
        raise InputError("the shares are too far from the numbers of examples", where=where, hint=hint)
    return [max(round(scale * share), count) for count, share in zip(counts, shares, strict=True)]


def _check(tasks: Sequence[Task], weights: Sequence[float] | None, where: str) -> None:
    if not tasks:
        raise InputError("a mixture needs a task", where=where)
    names = [task.name for task in tasks]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"two tasks are called `{twice[0]}`", where=where)
    if weights is not None and len(weights) != len(tasks):
        raise InputError(f"{len(weights)} weights for {len(tasks)} tasks", where=where)
    for task, weight in zip(tasks, weights or [], strict=False):
        good = isinstance(weight, numbers.Real) and not isinstance(weight, bool) and math.isfinite(weight)
        if not good or weight <= 0:
            hint = "a share is a number above 0; leave out what is not to be learnt"
            raise InputError(f"the weight of `{task.name}` is {weight!r}", where=where, hint=hint)
    first, one = tasks[0], columns_of(tasks[0].split("train").batch([0]))
    for other in tasks[1:]:
        pair = f"`{first.name}` and `{other.name}`"
        if other.meet != first.meet:
            raise InputError(f"tasks {pair} call a model in different ways", where=where)
        if other.metric.higher_is_better != first.metric.higher_is_better:
            what = f"tasks {pair} are measured in opposite ways: {first.metric.name}, {other.metric.name}"
            raise InputError(what, where=where, hint="give both a metric of which more (or less) is better")
        two = columns_of(other.split("train").batch([0]))
        if one != two:
            what = f"batches of tasks {pair} differ: {_told(one)} against {_told(two)}"
            raise InputError(what, where=where, hint="mixed tasks share the columns of a batch")
    if any(name == TASK for name, _, _ in one):
        hint = "the column says whose an example is; give it another name"
        raise InputError(f"a batch has a column `{TASK}` already", where=where, hint=hint)


def _told(columns: Sequence[tuple[str, torch.dtype, int]]) -> str:
    told = ((name, str(dtype).removeprefix("torch."), dims) for name, dtype, dims in columns)
    return ", ".join(f"`{name}` {dtype} of {dims} dimensions" for name, dtype, dims in told)

"""A mixture: several tasks that one model learns at once, each with its own head, loss and metric.

A batch of a mixture holds examples of all its tasks, in the shares that were asked for on average, and a
column that says whose each example is. The body sees them alike; every head gives its outputs for all of
them (heads are small beside bodies, and tensors of one shape can be stacked), and an example's own counts.
"""

from __future__ import annotations

import copy
import functools
import math
import numbers
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from plait.errors import InputError
from plait.tasks._examples import Batch, Columns, Examples, Ragged
from plait.tasks._losses import TASK, Loss
from plait.tasks._metrics import Floats, Metric
from plait.tasks._subset import Subset
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
        metric=_metric([task.metric for task in tasks], headed, [task.loss for task in tasks]),
        head=Heads(tasks) if headed else None,
        meet=tasks[0].meet,
        semi_synthetic=any(task.semi_synthetic for task in tasks),
        about="; ".join(task.about for task in tasks if task.about),
    )


@dataclass(frozen=True, eq=False)
class Mixed:
    """Examples of several tasks one after another.

    Args:
        parts: each task's.
        lengths: how many of each there are here; a part that is shorter comes round again.
        places: of the tasks in the mixture.
    """

    parts: tuple[Examples, ...]
    lengths: tuple[int, ...]
    places: tuple[int, ...]

    def __len__(self) -> int:
        return sum(self.lengths)

    @functools.cached_property
    def _starts(self) -> NDArray[np.int64]:
        return np.cumsum([0, *self.lengths])

    @property
    def starts(self) -> list[int]:
        """The place of each task's first example."""
        return self._starts[:-1].tolist()

    @property
    def padding(self) -> Mapping[str, int]:
        """What fills up sequences, by column."""
        return padding(self.parts[0])

    def batch(self, rows: Sequence[int]) -> Batch:
        index = np.asarray(rows, dtype=np.int64)
        owner = np.searchsorted(self._starts, index, side="right") - 1
        chosen = [
            (part, np.flatnonzero(owner == number), self._starts[number])
            for number, part in enumerate(self.parts)
        ]
        batches = [
            (part.batch((index[at] - start) % len(part)), torch.from_numpy(at))  # type: ignore[arg-type]
            for part, at, start in chosen
            if len(at)
        ]
        whole = {
            name: _placed([(batch[name], at) for batch, at in batches], len(index), self.padding.get(name, 0))
            for name in batches[0][0]
        }
        return whole | {TASK: torch.from_numpy(np.array(self.places)[owner])}


def _placed(parts: Sequence[tuple[Tensor, Tensor]], rows: int, fill: int) -> Tensor:
    """Columns of parts of a batch in one, each row in its place; shorter sequences filled up."""
    first = parts[0][0]
    shape = [max(sizes) for sizes in zip(*(tuple(t.shape[1:]) for t, _ in parts), strict=True)]
    whole = first.new_full((rows, *shape), fill)
    for tensor, at in parts:
        missing = [size - own for size, own in zip(shape, tensor.shape[1:], strict=True)]
        pads = [pad for size in reversed(missing) for pad in (0, size)]
        whole[at] = F.pad(tensor, pads, value=fill) if any(missing) else tensor
    return whole


def padding(examples: Examples) -> Mapping[str, int]:
    """What fills up sequences of examples, by column."""
    held = examples.whole if isinstance(examples, Subset) else examples
    return getattr(held, "padding", {})


def in_memory(examples: Examples) -> bool:
    """Whether all that examples hold is in memory, so that looking at it costs little."""
    if isinstance(examples, Mixed):
        return all(in_memory(part) for part in examples.parts)
    held = examples.whole if isinstance(examples, Subset) else examples
    return isinstance(held, Columns | Ragged)


class Heads(nn.Module):
    """The heads of a mixture's tasks, all called with the same features.

    Args:
        tasks: whose heads; those that have none let the body's outputs through.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.names = tuple(task.name for task in tasks)
        self.each = nn.ModuleList(
            [nn.Identity() if task.head is None else copy.deepcopy(task.head) for task in tasks]
        )

    def forward(self, features: Any) -> tuple[Any, ...]:
        return tuple(head(features) for head in self.each)

    def of(self, task: str) -> nn.Module:
        """A task's head.

        Raises:
            ValueError: the mixture has no such task.
        """
        return self.each[self.names.index(task)]

    def named(self) -> Iterator[tuple[str, nn.Module]]:
        """Tasks and their heads, where they have one."""
        return ((n, h) for n, h in zip(self.names, self.each, strict=True) if not isinstance(h, nn.Identity))


@dataclass(frozen=True)
class MixedLoss:
    """Each example's own task's loss.

    Args:
        losses: of the tasks, in the mixture's order.
        headed: whether outputs are one for each task, as `Heads` gives them.
    """

    losses: tuple[Loss, ...]
    headed: bool
    pads_classes: bool = False

    def __call__(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        values, weights = [], []
        for place, loss in enumerate(self.losses):
            own = outputs[place] if self.headed else outputs
            mine = batch[TASK] == place
            value, weight = loss(own, _own(batch, loss, mine))
            values.append(torch.where(mine, value, 0.0))
            weights.append(torch.where(mine, weight, 0.0))
        # All but one of them are 0, so that the sum is exact.
        return torch.stack(values).sum(0), torch.stack(weights).sum(0)


def _own(batch: Batch, loss: Loss, mine: Tensor) -> Batch:
    """A batch where other tasks' examples have the label 0, which every head has an output for."""
    label = getattr(loss, "label", None)
    if label not in batch:
        return batch
    held = batch[label]
    wide = mine.view(-1, *[1] * (held.dim() - 1))
    return batch | {label: torch.where(wide, held, 0)}


class _Mean:
    """The mean over tasks of their metrics; of those that have an example."""

    def __init__(self, metrics: Sequence[Metric], headed: bool, losses: Sequence[Loss]) -> None:
        self.metrics, self.headed, self.losses = list(metrics), headed, list(losses)
        #: How many numbers each metric adds, which shows when it is first asked.
        self.widths: list[int] = []

    def numbers(self, outputs: Any, batch: Batch) -> Tensor:
        found = []
        for place, (metric, loss) in enumerate(zip(self.metrics, self.losses, strict=True)):
            mine = batch[TASK] == place
            added = metric.numbers(outputs[place] if self.headed else outputs, _own(batch, loss, mine))
            found.append(added.double().masked_fill(~mine.unsqueeze(1), 0.0))
        self.widths = [each.shape[1] for each in found]
        return torch.cat(found, dim=1)

    def summary(self, sums: Floats) -> Floats:
        parts = np.split(sums, np.cumsum(self.widths)[:-1], axis=-1)
        scores = np.stack([m.summary(part) for m, part in zip(self.metrics, parts, strict=True)])
        there = np.stack([(part != 0).any(-1) for part in parts])
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(there, scores, 0.0).sum(0) / there.sum(0)


def _metric(metrics: Sequence[Metric], headed: bool, losses: Sequence[Loss]) -> Metric:
    first, mean = metrics[0], _Mean(metrics, headed, losses)
    names = list(dict.fromkeys(metric.name for metric in metrics))
    name = names[0] if len(names) == 1 else "mean of " + ", ".join(names)
    unit = first.unit if len(names) == 1 else ""
    return Metric(name, mean.numbers, mean.summary, first.higher_is_better, unit)


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
    first, one = tasks[0], _columns(tasks[0])
    for other in tasks[1:]:
        pair = f"`{first.name}` and `{other.name}`"
        if other.meet != first.meet:
            raise InputError(f"tasks {pair} call a model in different ways", where=where)
        if other.metric.higher_is_better != first.metric.higher_is_better:
            what = f"tasks {pair} are measured in opposite ways: {first.metric.name}, {other.metric.name}"
            raise InputError(what, where=where, hint="give both a metric of which more (or less) is better")
        two = _columns(other)
        if one != two:
            what = f"batches of tasks {pair} differ: {_told(one)} against {_told(two)}"
            raise InputError(what, where=where, hint="mixed tasks share the columns of a batch")
    if TASK in one:
        hint = "the column says whose an example is; give it another name"
        raise InputError(f"a batch has a column `{TASK}` already", where=where, hint=hint)


def _columns(task: Task) -> dict[str, tuple[str, int]]:
    batch = task.split("train").batch([0])
    return {n: (str(t.dtype).removeprefix("torch."), t.dim()) for n, t in sorted(batch.items())}


def _told(columns: Mapping[str, tuple[str, int]]) -> str:
    return ", ".join(f"`{name}` {dtype} of {dims} dimensions" for name, (dtype, dims) in columns.items())

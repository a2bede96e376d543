"""One pass of a model over a task's split: what each example adds to the metric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from plait.errors import InputError
from plait.tasks._examples import Batch, Examples, Ragged
from plait.tasks._labels import check_labels
from plait.tasks._losses import TASK, _tensor
from plait.tasks._metrics import Floats
from plait.tasks._task import Task

_SHORT = (torch.bfloat16, torch.float16)


def numbers(
    model: nn.Module, task: Task, split: str, *, batch_size: int, where: str
) -> tuple[Floats, NDArray[np.bool_]]:
    """What each example adds to the metric `(n, k)`, and for which the model gave NaN `(n,)`.

    An example whose output holds NaN adds NaN. Sequences are taken in the order of their lengths, so that
    little is padded; what comes back is in the order of the split.

    Args:
        model: with its head, in evaluation mode, without gradients.
        task: what is measured.
        split: on which of its examples.
        batch_size: examples at a time.
        where: model and task, for messages.

    Raises:
        InputError: there is no such split, or nothing in it; a label is out of range; a column is not there;
            the model can't take a batch.
    """
    examples = task.split(split)
    if len(examples) == 0:
        raise InputError(f"split `{split}` is empty", where=f"task `{task.name}`")
    order = _order(examples)
    held = [p for p in model.parameters() if p.is_floating_point()] or [torch.zeros(())]
    device, kinds = held[0].device, {p.dtype for p in held}
    dtype = kinds.pop() if len(kinds) == 1 else None
    parts, bad = [], []
    for start in range(0, len(order), batch_size):
        rows: Any = order[start : start + batch_size]
        batch = {
            name: column.to(device)
            for name, column in examples.batch(rows).items()
            if isinstance(column, Tensor)  # a data set may bring texts, too
        }
        outputs = _outputs(model, task, batch, dtype, where)
        logits = _flat(outputs)
        if logits is not None and logits.dim() == 2:
            told = f"task `{task.name}`, split `{split}`"
            check_labels(task.loss, batch, logits.shape[1], told, rows)
        added = _added(task, split, outputs, batch, where)
        no_number = broken(outputs, added, batch)
        parts.append(added.double().masked_fill(no_number[:, None], float("nan")).cpu().numpy())
        bad.append(no_number.cpu().numpy())
    back = np.argsort(order)
    return np.concatenate(parts)[back], np.concatenate(bad)[back]


def _order(examples: Examples) -> NDArray[np.int64]:
    """All rows; sequences the longest first, so that what is too large for the memory fails at once."""
    if not isinstance(examples, Ragged):
        return np.arange(len(examples))
    lengths = [len(sequence) for sequence in next(iter(examples.sequences.values()))]
    return np.argsort(-np.asarray(lengths), kind="stable")


def _outputs(
    model: Callable[..., Any], task: Task, batch: Batch, dtype: torch.dtype | None, where: str
) -> Any:
    """Outputs for a batch whose inputs are in the model's type, if that is one; those of 2 dimensions in
    float32 at least.
    """
    label = getattr(task.loss, "label", None)
    inputs = {
        name: column.to(dtype) if column.is_floating_point() and name != label and dtype else column
        for name, column in batch.items()
    }
    try:
        outputs = task.outputs(model, inputs)
    except torch.OutOfMemoryError as error:
        raise InputError(
            "the device has too little memory for a batch", where=where, hint="take a smaller batch size"
        ) from error
    except InputError:
        raise
    except Exception as error:  # whatever the user's model raises on a batch that it is not made for
        raise InputError(
            f"the model can't take this task's batches: {type(error).__name__}: {error}",
            where=where,
            hint="give a model of the suite's architecture, with the task's head",
        ) from error
    logits = _flat(outputs)
    return outputs if logits is None or logits.dtype not in _SHORT else logits.float()


def _added(task: Task, split: str, outputs: Any, batch: Batch, where: str) -> Tensor:
    try:
        return task.metric.numbers(outputs, batch)
    except KeyError as error:
        has = ", ".join(f"`{name}`" for name in batch)
        raise InputError(
            f"{task.metric.name} needs a column {error.args[0]!r}",
            where=f"task `{task.name}`, split `{split}`",
            hint=f"its examples have {has}",
        ) from error
    except InputError as error:
        raise error.located(lambda _: f"{where}, split `{split}`") from error


def broken(outputs: Any, added: Tensor, batch: Batch) -> Tensor:
    """Which examples have no number: their outputs or what they add hold NaN.

    Outputs of three dimensions and more are left to the metric, which knows what of them is padding. Of a
    mixture's heads, that of each example's own task counts.
    """
    if isinstance(outputs, tuple) and TASK in batch:
        own = [broken(each, added, {}) & (batch[TASK] == place) for place, each in enumerate(outputs)]
        return torch.stack(own).any(0)
    found = added.isnan().any(1)
    logits = _flat(outputs)
    return found if logits is None else found | logits.reshape(len(logits), -1).isnan().any(1)


def _flat(outputs: Any) -> Tensor | None:
    """What a model gave for a batch, if it is one number or one row for each example."""
    try:
        found = _tensor(outputs)
    except TypeError:
        return None
    return found if found.dim() <= 2 else None

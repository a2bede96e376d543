"""Labels of classes: looked through before training where that is cheap, else in every batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import data as torch_data

from plait.errors import InputError
from plait.tasks._examples import Batch, Columns, Examples, Items, Ragged
from plait.tasks._losses import IGNORED, TASK, CrossEntropy, Loss
from plait.tasks._subset import table_of

#: How many classes there are: of a task, or of each task of a mixture; None where there are none.
Classes = int | tuple[int | None, ...] | None


def known_labels(examples: Examples, name: str) -> Tensor | None:
    """The labels of all examples, if no example has to be made for them."""
    table, rows = table_of(examples)
    if rows is not None:
        whole = known_labels(table, name)
        return None if whole is None else whole[torch.from_numpy(np.asarray(rows, dtype=np.int64))]
    if isinstance(examples, Columns | Ragged):
        return examples.columns.get(name)
    if not isinstance(examples, Items):
        return None
    if name in examples.columns:
        return examples.columns[name]
    return None if examples.prepare is not None else _column(examples.data, name, examples.names)


def label_problem(
    labels: Tensor, classes: int | None, where: str, rows: Sequence[int] | None = None
) -> InputError | None:
    """What is wrong with labels, if anything is.

    Args:
        labels: of some examples.
        classes: how many outputs there are; None if that is not known.
        where: task and split, for messages.
        rows: the examples' numbers; 0, 1, … if None.
    """
    if labels.is_floating_point() or labels.dim() != 1:
        told = f"labels are {str(labels.dtype).removeprefix('torch.')} of shape {tuple(labels.shape)}"
        return InputError(told, where=where, hint="classes are integers, one for each example")
    if not len(labels):
        return None
    labels = labels.long()
    low, high = (int(end) for end in labels.aminmax())
    if low >= 0 and (classes is None or high < classes):
        return None
    wrong = low if low < 0 else high
    place = int((labels == wrong).nonzero()[0])
    where = f"{where}, example {place if rows is None else rows[place]}"
    if wrong == IGNORED:
        hint = "−100 leaves out tokens (`NextToken`); leave out an example that has no class"
        return InputError(f"label {wrong} is no class", where=where, hint=hint)
    if wrong < 0:
        return InputError(f"label {wrong} is below 0", where=where, hint="number the classes from 0 on")
    what = f"label {wrong} is out of range: the head has {classes} outputs"
    hint = f"labels go from 0 to {(classes or 1) - 1}; give the head {wrong + 1} outputs or mend the labels"
    return InputError(what, where=where, hint=hint)


def check_labels(
    loss: Loss, batch: Batch, classes: Classes, where: str, rows: Sequence[int] | None = None
) -> None:
    """Nothing if there is an output for every label of a batch, or the loss has no classes.

    Args:
        loss: of the task.
        batch: of its examples.
        classes: as for `label_problem`; of a mixture's loss, of each task.
        where: as for `label_problem`.
        rows: as for `label_problem`.

    Raises:
        InputError: a label is no class; it says which example's.
    """
    if isinstance(classes, tuple):
        for place, own, count in zip(range(len(classes)), loss.losses, classes, strict=True):  # type: ignore[attr-defined]
            mine = (batch[TASK] == place).nonzero().squeeze(1)
            part = {name: column[mine] for name, column in batch.items()}
            check_labels(own, part, count, where, None if rows is None else np.asarray(rows)[mine])
        return
    labels = batch.get(loss.label) if isinstance(loss, CrossEntropy) else None
    problem = None if labels is None else label_problem(labels, classes, where, rows)
    if problem is not None:
        raise problem


def _column(data: Any, name: str, names: Sequence[str]) -> Tensor | None:
    """The labels in a dataset that keeps them as a column; None if it may change them on the way."""
    # Exact types: what a class of the user's makes of its tensors is not known.
    if type(data) is torch_data.Subset:
        whole = _column(data.dataset, name, names)
        return None if whole is None else whole[torch.as_tensor(data.indices, dtype=torch.int64)]
    if type(data) is torch_data.TensorDataset:
        fits = len(data.tensors) == len(names) and name in names
        return data.tensors[list(names).index(name)] if fits else None
    if type(data) is list:
        return _numbers([_part(row, name, names) for row in data])
    form = getattr(data, "format", None)
    if not isinstance(form, Mapping) or form.get("type") == "custom" or name not in form.get("columns", ()):
        return None
    return _numbers(data.with_format("numpy", columns=[name])[:][name])


def _part(row: Any, name: str, names: Sequence[str]) -> Any:
    if isinstance(row, Mapping):
        return row.get(name)
    return row[list(names).index(name)] if isinstance(row, tuple) and len(row) == len(names) else None


def _numbers(values: Any) -> Tensor | None:
    try:
        found = np.asarray(values)
    except (ValueError, TypeError, RuntimeError):  # of unequal shapes
        return None
    return torch.from_numpy(found) if found.dtype.kind in "iufb" else None

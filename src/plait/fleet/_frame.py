"""One model per group of a table: its rows as one set of columns, a member for each group."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from plait.errors import InputError, nearest
from plait.tasks import (
    Columns,
    CrossEntropy,
    Loss,
    Metric,
    SquaredError,
    Subset,
    Task,
    accuracy,
    mean_squared_error,
)


@dataclass(frozen=True)
class Layout:
    """How a table is read.

    Args:
        by: the column, or columns, whose values name the groups.
        features: columns that networks get, in this order.
        target: the column that they learn.
        classes: its values if it is a class, in order; None for numbers.
    """

    by: tuple[str, ...]
    features: tuple[str, ...]
    target: str
    classes: tuple[Any, ...] | None


def layout(frame: Any, by: str | Sequence[str], features: Sequence[str] | None, target: str) -> Layout:
    """How to read a frame.

    Raises:
        InputError: a column is not there, is no number, or holds NaN.
    """
    columns = [str(c) for c in frame.columns]
    keys = (by,) if isinstance(by, str) else tuple(by)
    for name in [*keys, target, *(features or [])]:
        if name not in columns:
            raise InputError(f"the frame has no column `{name}`", hint=nearest(name, columns))
    chosen = tuple(features) if features else tuple(c for c in columns if c not in (*keys, target))
    if not chosen:
        raise InputError("the frame has no column to learn from", hint=f"besides `{target}` and {list(keys)}")
    goal = np.asarray(frame[target])
    classes = None if goal.dtype.kind == "f" else tuple(np.unique(goal).tolist())
    return Layout(keys, chosen, target, classes)


def inputs(frame: Any, how: Layout) -> torch.Tensor:
    """A frame's features, `(rows, features)` in float32.

    Raises:
        InputError: a column is missing, is no number, or holds NaN.
    """
    matrix = np.empty((len(frame), len(how.features)), np.float32)
    for place, name in enumerate(how.features):
        if name not in frame.columns:
            raise InputError(f"the frame has no column `{name}`", hint=nearest(name, map(str, frame.columns)))
        column = np.asarray(frame[name])
        if column.dtype.kind not in "fiub":
            raise InputError(
                f"column `{name}` is {column.dtype}, no numbers",
                hint="encode it, or leave it out of features=",
            )
        if column.dtype.kind == "f" and not np.isfinite(column).all():
            row = int(np.flatnonzero(~np.isfinite(column))[0])
            raise InputError(f"column `{name}` is {column[row]} in row {row}", hint="fill or drop such rows")
        matrix[:, place] = column
    return torch.from_numpy(matrix)


def targets(frame: Any, how: Layout) -> torch.Tensor:
    """What networks learn: float32 numbers, or the places of classes."""
    goal = np.asarray(frame[how.target])
    if how.classes is None:
        if not np.isfinite(goal).all():
            row = int(np.flatnonzero(~np.isfinite(goal))[0])
            raise InputError(f"column `{how.target}` is {goal[row]} in row {row}", hint="drop such rows")
        return torch.from_numpy(goal.astype(np.float32))
    places = {value: place for place, value in enumerate(how.classes)}
    unknown = [value for value in goal.tolist() if value not in places]
    if unknown:
        raise InputError(
            f"column `{how.target}` holds `{unknown[0]}`, a class that the fleet was not made with",
            hint="make a new fleet from all rows",
        )
    return torch.tensor([places[value] for value in goal.tolist()])


def groups(frame: Any, by: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """The groups of a frame as members' names, and each row's place among them."""
    columns = [np.asarray(frame[column]).tolist() for column in by]
    found, codes = coded(columns[0] if len(columns) == 1 else list(zip(*columns, strict=True)))
    named = [str(value) for value in found] if len(columns) == 1 else [", ".join(map(str, v)) for v in found]
    # Values that are written alike (1 and "1") are one group.
    unique, again = coded(named)
    return unique, again[codes]


def coded(values: Sequence[Any]) -> tuple[list[Any], NDArray[np.int64]]:
    """Values without repetition, in the order they first come, and each one's place among them."""
    places: dict[Any, int] = {}
    codes = [places.setdefault(value, len(places)) for value in values]
    return list(places), np.array(codes, dtype=np.int64)


def tasks(
    frame: Any, how: Layout, loss: Loss | None, metric: Metric | None, validation: float, seed: int
) -> dict[str, Task]:
    """A task for each group; its rows are a subset of one table.

    Args:
        frame: the table.
        how: it is read.
        loss: by the target if None.
        metric: by the target if None.
        validation: the share of each group's rows that is kept for validation.
        seed: of that choice.
    """
    table = Columns({"input": inputs(frame, how), "label": targets(frame, how)})
    numbers = how.classes is None
    loss = loss or (SquaredError() if numbers else CrossEntropy())
    metric = metric or (mean_squared_error() if numbers else accuracy())
    keys, codes = groups(frame, how.by)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes))
    made = {}
    for key, rows in zip(keys, np.split(order, ends[:-1]), strict=True):
        made[key] = Task(key, _splits(table, rows, validation, seed, key), loss=loss, metric=metric)
    return made


def _splits(
    table: Columns, rows: NDArray[np.int64], validation: float, seed: int, key: str
) -> Mapping[str, Subset]:
    rows = np.sort(rows)
    held = min(round(validation * len(rows)), len(rows) - 1)
    if held == 0:
        return {"train": Subset(table, rows)}
    digest = hashlib.blake2b(f"{seed} {key}".encode(), digest_size=8).digest()
    mixed = np.random.default_rng(int.from_bytes(digest, "little")).permutation(rows)
    return {"train": Subset(table, np.sort(mixed[held:])), "validation": Subset(table, np.sort(mixed[:held]))}


def described(task: Task) -> str:
    """A fingerprint of a group's rows."""
    found = hashlib.blake2b(digest_size=16)
    for name in sorted(task.splits):
        examples = task.splits[name]
        for column, values in sorted(examples.batch(range(len(examples))).items()):
            found.update(f"{name} {column} {tuple(values.shape)}".encode())
            found.update(values.numpy().tobytes())
    return found.hexdigest()

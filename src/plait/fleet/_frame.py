"""One model per group of a table: its rows as one set of columns, a member for each group."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from plait.errors import InputError, counted, nearest
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


#: A table's columns by name, as they came.
Frame = Mapping[str, Any]


def is_table(data: Any) -> bool:
    """Whether data have named columns."""
    return isinstance(data, Mapping) or hasattr(data, "columns") or hasattr(data, "column_names")


def read(frame: Any) -> Frame:
    """The columns of a data frame or of a dict; names that are no strings are taken as they are written.

    Raises:
        InputError: it has no columns, two of one name, or columns of unequal length.
    """
    if not is_table(frame):
        raise InputError(
            f"a {type(frame).__name__} is no table", hint="give a data frame, or a dict of columns"
        )
    names = list(
        frame if isinstance(frame, Mapping) else getattr(frame, "column_names", None) or list(frame.columns)
    )
    found: dict[str, Any] = {}
    for name in names:
        if str(name) in found:
            raise InputError(f"the frame has two columns `{name}`", hint="give each a name of its own")
        found[str(name)] = frame[name]
    lengths = {name: len(column) if hasattr(column, "__len__") else -1 for name, column in found.items()}
    for name, length in lengths.items():
        if length < 0 or isinstance(found[name], str):
            hint = "give a data frame, or a dict of columns"
            raise InputError(f"column `{name}` is a {type(found[name]).__name__}", hint=hint)
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"`{name}` {length}" for name, length in lengths.items())
        raise InputError(f"columns of unequal length: {told}", hint="every column needs one value per row")
    return found


def rows(frame: Frame) -> int:
    """How many rows a frame has."""
    return next((len(column) for column in frame.values()), 0)


def listed(names: Any) -> tuple[str, ...]:
    """Columns that the user named: one, or several."""
    several = isinstance(names, Iterable) and not isinstance(names, str)
    return tuple(str(name) for name in names) if several else (str(names),)


def _values(frame: Frame, name: str) -> NDArray[Any]:
    """A column, one value per row."""
    if name not in frame:
        raise InputError(f"the frame has no column `{name}`", hint=nearest(name, frame))
    try:
        found = np.asarray(frame[name])
        if found.dtype.kind == "U" and isinstance(frame[name], list | tuple):
            found = np.asarray(frame[name], dtype=object)  # NumPy makes words of numbers among words
    except (TypeError, ValueError) as error:
        raise InputError(f"column `{name}` can't be read: {error}") from error
    if found.ndim != 1:
        raise InputError(f"column `{name}` has {found.ndim} dimensions", hint="give one value per row")
    return found


def _column(frame: Frame, name: str) -> NDArray[Any]:
    """A column without gaps; NaN among floating-point numbers is left to who needs numbers."""
    found = _values(frame, name)
    if found.dtype.kind in "OmM":
        _whole(name, sum(map(_missing, found.tolist())), len(found))
    if found.dtype.kind == "O" and all(isinstance(v, Real) and not isinstance(v, bool) for v in found):
        return np.asarray(found.tolist())  # numbers that might have been absent come as objects
    return found


def _whole(name: str, absent: int, count: int) -> None:
    if absent:
        what = f"column `{name}` has no value in {absent} of {counted(count, 'row')}"
        raise InputError(what, hint="fill or drop such rows")


def _missing(value: object) -> bool:
    """Whether there is no value: None, and whatever does not equal itself."""
    try:
        return value is None or not value == value  # noqa: PLR0124, SIM201
    except (TypeError, ValueError):  # pandas' NA says neither
        return True


def layout(frame: Frame, by: Any, features: Any, target: Any) -> Layout:
    """How to read a frame.

    Raises:
        InputError: a column is not there, is no number, has no value somewhere, or is used twice.
    """
    keys, target = listed(by), str(target)
    named = () if features is None else listed(features)
    for name in [*keys, target, *named]:
        if name not in frame:
            raise InputError(f"the frame has no column `{name}`", hint=nearest(name, frame))
    if not keys:
        raise InputError("`by` names no column", hint="say which column names the groups")
    for argument, chosen in (("by", keys), ("features", named)):
        if target in chosen:
            raise InputError(f"`{argument}` has the target `{target}`", hint="leave it out")
        if len(set(chosen)) < len(chosen):
            raise InputError(f"`{argument}` names a column twice", hint=", ".join(chosen))
    chosen = tuple(c for c in frame if c not in (*keys, target)) if features is None else named
    if not chosen:
        raise InputError("the frame has no column to learn from", hint=f"besides `{target}` and {list(keys)}")
    goal = _column(frame, target)
    try:
        classes = None if goal.dtype.kind == "f" else tuple(np.unique(goal).tolist())
    except TypeError as error:
        kinds = sorted({type(value).__name__ for value in goal})
        what = f"column `{target}` holds values of several kinds: {', '.join(kinds)}"
        raise InputError(what, hint="make them all of one") from error
    return Layout(keys, chosen, target, classes)


def inputs(frame: Frame, how: Layout) -> torch.Tensor:
    """A frame's features, `(rows, features)` in float32.

    Raises:
        InputError: a column is missing, is no number, or holds NaN.
    """
    matrix = np.empty((rows(frame), len(how.features)), np.float32)
    for place, name in enumerate(how.features):
        hint = "encode it, or leave it out of features="
        matrix[:, place] = _numbers(frame, name, hint)
    return torch.from_numpy(matrix)


def _numbers(frame: Frame, name: str, hint: str) -> NDArray[np.float32]:
    column = _column(frame, name)
    if column.dtype.kind not in "fiub":
        raise InputError(f"column `{name}` is {column.dtype}, no numbers", hint=hint)
    with np.errstate(over="ignore"):
        found = column.astype(np.float32)
    if not np.isfinite(found).all():
        row = int(np.flatnonzero(~np.isfinite(found))[0])
        told = "fill or drop such rows; numbers go to about 3e38"
        raise InputError(f"column `{name}` is {column[row]} in row {row}", hint=told)
    return found


def targets(frame: Frame, how: Layout) -> torch.Tensor:
    """What networks learn: float32 numbers, or the places of classes."""
    if how.classes is None:
        return torch.from_numpy(_numbers(frame, how.target, "the fleet was made to learn numbers"))
    goal = _column(frame, how.target).tolist()
    places = {value: place for place, value in enumerate(how.classes)}
    unknown = [value for value in goal if value not in places]
    if unknown:
        raise InputError(
            f"column `{how.target}` holds `{unknown[0]}`, a class that the fleet was not made with",
            hint="make a new fleet from all rows",
        )
    return torch.tensor([places[value] for value in goal])


def groups(frame: Frame, by: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """The groups of a frame as members' names, and each row's place among them.

    Raises:
        InputError: a row has no group, or two groups have one name.
    """
    columns = [_values(frame, column).tolist() for column in by]
    found, codes = coded(list(zip(*columns, strict=True)) if len(columns) > 1 else columns[0])
    parts = [value if len(columns) > 1 else (value,) for value in found]
    for place, name in enumerate(by):
        gaps = [code for code, part in enumerate(parts) if _missing(part[place])]
        _whole(name, int(np.isin(codes, gaps).sum()) if gaps else 0, len(codes))
    # Values that are written alike (1 and "1") are one group.
    texts = [tuple(map(str, part)) for part in parts]
    named: dict[str, tuple[str, ...]] = {}
    for text in texts:
        if named.setdefault(written(text), text) != text:
            hint = "write the values without `, `, or give one column that names the groups"
            raise InputError(f"two groups would be called `{written(text)}`", hint=hint)
    unique, again = coded([written(text) for text in texts])
    return unique, again[codes]


def written(value: object) -> str:
    """What the member of a group is called."""
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def coded(values: Sequence[Any]) -> tuple[list[Any], NDArray[np.int64]]:
    """Values without repetition, in the order they first come, and each one's place among them."""
    places: dict[Any, int] = {}
    codes = [places.setdefault(value, len(places)) for value in values]
    return list(places), np.array(codes, dtype=np.int64)


def tasks(
    frame: Frame, how: Layout, loss: Loss | None, metric: Metric | None, validation: float, seed: int
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
    """A fingerprint of a group's rows, whatever their order."""
    found: list[bytes] = []
    for examples in task.splits.values():
        columns = sorted(examples.batch(range(len(examples))).items())
        flat = [column.reshape(len(examples), -1).contiguous().view(torch.uint8) for _, column in columns]
        found += [row.tobytes() for row in torch.cat(flat, dim=1).numpy()]
    return hashlib.blake2b(b"".join(sorted(found)), digest_size=16).hexdigest()

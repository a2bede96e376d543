"""Rows that come for prediction, made like those that a member learned from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import Tensor

from plait.errors import InputError
from plait.fleet._trainee import Trainee
from plait.tasks import Batch


@contextlib.contextmanager
def like(batch: Batch, trainee: Trainee) -> Iterator[Batch]:
    """Rows with numbers of the types that a member learned from; what its network then refuses is told.

    Args:
        batch: named columns `(rows, …)`.
        trainee: the member.

    Raises:
        InputError: they have another number of dimensions, fractions where it learned from whole numbers, or
            its network doesn't take them.
    """
    learned, where = trainee.example, f"member `{trainee.member.name}`"
    made = {n: _made(n, c, learned[n], where) if n in learned else c for n, c in batch.items()}
    try:
        yield made
    except InputError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        told = ", ".join(f"`{name}` {_shape(column)}" for name, column in batch.items())
        wanted = ", ".join(f"`{name}` {_shape(column)}" for name, column in learned.items())
        raise InputError(
            f"rows of {told} don't fit its network: {lines[0]}", where=where, hint=f"it learned from {wanted}"
        ) from error


def _made(name: str, column: Tensor, learned: Tensor, where: str) -> Tensor:
    if column.dim() != learned.dim():
        what = f"rows have `{name}` of {_shape(column)}, the member learned from {_shape(learned)}"
        raise InputError(what, where=where, hint="the first dimension runs over rows")
    if column.is_floating_point() and not learned.is_floating_point():
        if not bool((column == column.round()).all()):
            what = f"rows have fractions in `{name}`, the member learned from whole numbers"
            raise InputError(what, where=where, hint=f"give {str(learned.dtype).removeprefix('torch.')}")
        return column.to(learned.dtype)
    return column.to(learned.dtype) if learned.is_floating_point() else column


def _shape(column: Tensor) -> str:
    """A column's shape for people: `(rows, 3)`."""
    return "(" + ", ".join(["rows", *map(str, column.shape[1:])]) + ")"

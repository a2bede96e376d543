"""Rows to predictions: which member each row is for, and what comes back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plait.errors import InputError, counted
from plait.fleet import _frame as frames
from plait.fleet._route import Router
from plait.tasks import Batch, CrossEntropy

if TYPE_CHECKING:
    from plait.fleet._fleet import Fleet

#: Of each row's member, or one for all rows.
Names = str | int | Iterable[str] | Iterable[int] | NDArray[Any]


def outputs(fleet: Fleet, data: Any, member: Names | None) -> Tensor:
    """Outputs of each row's member."""
    return _asked(fleet, data, member)[0]


def predict(fleet: Fleet, data: Any, member: Names | None) -> NDArray[Any]:
    """Each row's class, or its numbers."""
    found, names = _asked(fleet, data, member)
    of_classes = {name: isinstance(fleet._roster.trainee(name).task.loss, CrossEntropy) for name in names}
    if len(set(of_classes.values())) > 1:
        one, other = (next(n for n in names if of_classes[n] == kind) for kind in (True, False))
        what = f"member `{one}` predicts classes and `{other}` numbers"
        raise InputError(what, hint="predict their rows apart, or take outputs()")
    if True in of_classes.values():
        classes = None if fleet._table is None else fleet._table.layout.classes
        # A network may have more outputs than there are classes.
        chosen = found[..., : None if classes is None else len(classes)].argmax(-1).numpy()
        return chosen if classes is None else np.array(classes)[chosen]
    return found.squeeze(-1).numpy() if found.shape[-1] == 1 else found.numpy()


def _asked(fleet: Fleet, data: Any, member: Names | None) -> tuple[Tensor, list[str]]:
    """Outputs, and the members that were asked."""
    batch, count = _batch(fleet, data)
    names, codes = _named(fleet, data, member, count)
    trainees = fleet._roster.trainees
    for name in names:
        fleet._roster.trainee(name)
    router = fleet._router
    if router is None:
        router = Router({n: (t, fleet.state(n)) for n, t in trainees.items()}, fleet.place.device)
        # While members train, their weights are others at the next step.
        fleet._router = None if fleet._training else router
    if count:
        return router(batch, names, codes), names
    names = names or list(trainees)[:1]
    one = trainees[names[0]].example
    return router(one, names[:1], np.zeros(1, np.int64))[:0], names


def _named(fleet: Fleet, data: Any, member: Any, count: int) -> tuple[list[str], NDArray[np.int64]]:
    """The members that are asked, and each row's place among them."""
    if member is None:
        if fleet._table is None or not frames.is_table(data):
            raise InputError("rows of which members?", hint="give member=, one name for each row")
        return frames.groups(frames.read(data), fleet._table.layout.by)
    given = member.tolist() if hasattr(member, "tolist") else member
    if isinstance(given, str) or not isinstance(given, Iterable):
        return [frames.written(given)], np.zeros(count, np.int64)
    # As in a frame, values are taken as they are written: the number 1 is member `1`.
    found, codes = frames.coded([frames.written(name) for name in given])
    if len(codes) != count:
        raise InputError(
            f"{len(codes)} members for {counted(count, 'row')}", hint="give one name for each row"
        )
    return found, codes


def _batch(fleet: Fleet, data: Any) -> tuple[Batch, int]:
    """Rows as named columns of whatever type they came in, and how many they are."""
    if fleet._table is not None and frames.is_table(data):
        frame = frames.read(data)
        return {"input": frames.inputs(frame, fleet._table.layout)}, frames.rows(frame)
    columns = data if isinstance(data, Mapping) else {"input": data}
    batch = {str(name): _tensor(str(name), column) for name, column in columns.items()}
    counts = {name: len(column) for name, column in batch.items()}
    if len(set(counts.values())) != 1:
        told = ", ".join(f"`{name}` {count}" for name, count in counts.items()) or "there are none"
        raise InputError(f"columns of unequal length: {told}", hint="every column needs one value per row")
    return batch, next(iter(counts.values()))


def _tensor(name: str, column: Any) -> Tensor:
    hint = "give an array, a tensor or a list of equally long rows"
    try:
        own = isinstance(column, Tensor)
        found = column if own else torch.from_numpy(np.require(column, None, ["C", "W"]))
    except (TypeError, ValueError) as error:
        raise InputError(f"the rows' `{name}` are no numbers of one shape: {error}", hint=hint) from error
    if found.dim() == 0:
        raise InputError(f"{column!r} is no row", hint=hint)
    return found

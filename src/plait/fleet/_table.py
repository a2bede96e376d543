"""What a fleet with one member per group of a table does with further tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from plait.errors import InputError, nearest
from plait.fleet import _frame as frames
from plait.fleet._member import Member
from plait.fleet._route import Router
from plait.tasks import Batch, CrossEntropy, Loss, Metric, Task

if TYPE_CHECKING:
    from plait.fleet._fleet import Fleet


@dataclass(frozen=True)
class Table:
    """How a fleet's table is read, and what its members have in common.

    Args:
        layout: columns.
        settings: of every member.
        loss, metric: of every task; by the target if None.
        validation: share of rows kept for validation.
        seed: of members and of that choice.
    """

    layout: frames.Layout
    settings: Mapping[str, Any]
    loss: Loss | None
    metric: Metric | None
    validation: float
    seed: int

    def tasks(self, frame: Any) -> dict[str, Task]:
        """A task for each group of a frame."""
        return frames.tasks(frame, self.layout, self.loss, self.metric, self.validation, self.seed)

    def member(self, name: str, task: Task) -> Member:
        """The member of a group."""
        settings: dict[str, Any] = {"seed": self.seed} | dict(self.settings)
        return Member(**settings, name=name, task=task)


def refit(fleet: Fleet, frame: Any) -> list[str]:
    """Let members whose rows changed train anew, and new groups join; the others keep their weights.

    Returns:
        the names of those that will train.
    """
    table = _table(fleet)
    changed = []
    for name, task in table.tasks(frame).items():
        if name in fleet:
            trainee = fleet._trainees[name]
            if frames.described(trainee.task) == frames.described(task):
                continue
            fleet._remove(name)
        fleet.add(table.member(name, task))
        changed.append(name)
    return changed


def predict(fleet: Fleet, data: Any, member: str | Sequence[str] | None) -> tuple[Tensor, bool]:
    """Outputs of each row's member, and whether they are logits of classes."""
    batch = _batch(fleet, data)
    count = len(next(iter(batch.values())))
    members, codes = _named(fleet, data, member, count)
    for name in members:
        if name not in fleet._trainees:
            raise InputError(f"there is no member `{name}`", hint=nearest(name, fleet.members))
    if fleet._router is None:
        states = {n: (t, fleet.state(n)) for n, t in fleet._trainees.items()}
        fleet._router = Router(states, fleet.place.device)
    loss = fleet._trainees[members[0]].task.loss if members else None
    return fleet._router(batch, members, codes), isinstance(loss, CrossEntropy)


def _named(
    fleet: Fleet, data: Any, member: str | Sequence[str] | None, count: int
) -> tuple[list[str], NDArray[np.int64]]:
    """The members that are asked, and each row's place among them."""
    if isinstance(member, str):
        return [member], np.zeros(count, np.int64)
    if member is None:
        if fleet._table is None or not hasattr(data, "columns"):
            raise InputError("rows of which members?", hint="give member=, one name for each row")
        return frames.groups(data, fleet._table.layout.by)
    if len(member) != count:
        raise InputError(f"{len(member)} members for {count} rows", hint="give one name for each row")
    found, codes = frames.coded(list(member))
    return [str(name) for name in found], codes


def _batch(fleet: Fleet, data: Any) -> Batch:
    if hasattr(data, "columns") and fleet._table is not None:
        return {"input": frames.inputs(data, fleet._table.layout)}
    if isinstance(data, Mapping):
        return {name: torch.as_tensor(column) for name, column in data.items()}
    array = data if isinstance(data, Tensor) else torch.from_numpy(np.ascontiguousarray(np.asarray(data)))
    like = next(next(iter(fleet._trainees.values())).network.parameters()).dtype
    return {"input": array.to(like) if array.is_floating_point() else array}


def _table(fleet: Fleet) -> Table:
    if fleet._table is None:
        raise InputError("this fleet was not made from a table", hint="plait.Fleet.from_frame makes one")
    return fleet._table


Model = nn.Module | Callable[[], nn.Module]


def from_frame(
    frame: Any,
    *,
    by: str | Sequence[str],
    target: str,
    features: Sequence[str] | None,
    loss: Loss | None,
    metric: Metric | None,
    validation: float,
    seed: int,
    settings: Mapping[str, Any],
) -> tuple[Table, list[Member]]:
    """A table's reading and its members."""
    if not len(frame):
        raise InputError("the frame has no rows")
    if not 0 <= validation < 1:
        raise InputError(f"`validation` is {validation}", hint="it is a share of rows, from 0 to below 1")
    how = frames.layout(frame, by, features, target)
    if how.classes is not None and loss is not None and not isinstance(loss, CrossEntropy):
        how = replace(how, classes=None)
    table = Table(how, settings, loss, metric, validation, seed)
    return table, [table.member(name, task) for name, task in table.tasks(frame).items()]

"""What a fleet with one member per group of a table does with further tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

from torch import nn

from plait.errors import InputError, nearest
from plait.fleet import _frame as frames
from plait.fleet._check import check_measures
from plait.fleet._member import Member
from plait.tasks import CrossEntropy, Loss, Metric, Task

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
        columns = frames.read(frame)
        return frames.tasks(columns, self.layout, self.loss, self.metric, self.validation, self.seed)

    def member(self, name: str, task: Task) -> Member:
        """The member of a group."""
        settings: dict[str, Any] = {"seed": self.seed} | dict(self.settings)
        return Member(**settings, name=name, task=task)


def refit(fleet: Fleet, frame: Any) -> list[str]:
    """Let members whose rows changed train anew, and new groups join; the others keep their weights.

    Returns:
        the names of those that will train.

    Raises:
        InputError: one of them can't be built, or never started; all are as they were then.
    """
    table, roster = _table(fleet), fleet._roster
    changed = [(name, task) for name, task in table.tasks(frame).items() if _has_changed(fleet, name, task)]
    fleet._router = None
    with roster.whole():
        for name, task in changed:
            if name in fleet:
                roster.replace(table.member(name, task))
            else:
                fleet.add(table.member(name, task))
    return [name for name, _ in changed]


def _has_changed(fleet: Fleet, name: str, task: Task) -> bool:
    """Whether a group is new or has other rows than its member learned from."""
    if name not in fleet:
        return True
    return frames.described(fleet._roster.trainee(name).task) != frames.described(task)


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
    _check_settings(settings)
    check_measures(loss, metric)
    columns = frames.read(frame)
    if not frames.rows(columns):
        raise InputError("the frame has no rows")
    if not isinstance(validation, Real) or not 0 <= validation < 1:
        raise InputError(f"`validation` is {validation!r}", hint="it is a share of rows, from 0 to below 1")
    how = frames.layout(columns, by, features, target)
    if how.classes is not None and loss is not None and not isinstance(loss, CrossEntropy):
        how = replace(how, classes=None)
    table = Table(how, settings, loss, metric, validation, seed)
    return table, [table.member(name, task) for name, task in table.tasks(columns).items()]


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Nothing if members have such settings, and the table doesn't say them."""
    valid = {entry.name for entry in fields(Member)} - {"name", "task"}
    for name in settings:
        if name in ("name", "task"):
            raise InputError(f"`{name}` is each group's own", hint=f"leave out {name}=")
        if name not in valid:
            raise InputError(f"members have no setting `{name}`", hint=nearest(name, valid))

"""A cell of expressions: what a rule asks for is noted, so that its kernel can be handed the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from plait.methods import Method, Settings
from plait.numerics import Expr, RuleError, Value

Stats = Mapping[str, Sequence[Any]]


def is_row_stat(values: Sequence[Any]) -> bool:
    """Whether every row has its own value of this statistic."""
    return bool(len(values)) and isinstance(values[0], np.ndarray) and values[0].ndim > 0


class Site(Protocol):
    """What must be known of a tensor to trace a rule over it."""

    @property
    def tensors(self) -> Sequence[object]: ...
    @property
    def has_base(self) -> bool: ...
    @property
    def method(self) -> Method: ...
    @property
    def settings(self) -> Settings: ...


class TraceCell:
    """A `Cell` of expressions.

    Args:
        job: the tensor.
        stats: what earlier stages found.
        recall: `write` notes conditions, `read` takes them from there.

    Attributes:
        params: where each number is found: ("option" | "each" | "stat", name, index).
        cuts: which statistics bound `before`: (name, index).
        row_params: statistics that each row has its own of.
        row_cuts: the same for bounds.
        ranks: models whose ranks were asked for.
        notes: conditions that are written down, by model.
        recalled: whether conditions are taken from what was written down.
    """

    def __init__(self, job: Site, stats: Stats, recall: str = "") -> None:
        self._job, self._stats, self._recall = job, stats, recall
        inputs = [Expr("input", (i,)) for i in range(len(job.tensors))]
        self.base: Value = inputs[0] if job.has_base else None
        self.models: tuple[Value, ...] = tuple(inputs[1:] if job.has_base else inputs)
        self.delta: tuple[Value, ...] = (
            tuple(x - self.base for x in self.models) if self.base is not None else ()
        )
        self.params: list[tuple[str, str, int]] = []
        self.cuts: list[tuple[str, int]] = []
        self.row_params: list[tuple[str, int]] = []
        self.row_cuts: list[tuple[str, int]] = []
        self.ranks: list[int] = []
        self.notes: dict[int, Expr] = {}
        self.recalled = False

    def option(self, name: str) -> Any:
        option = self._job.method.option(name)
        if option is not None and option.runtime:
            return _leaf("param", self.params, ("option", name, 0))
        return self._job.settings.shared[name]

    def each(self, name: str) -> tuple[Value, ...]:
        count = self._job.settings.models
        return tuple(_leaf("param", self.params, ("each", name, k)) for k in range(count))

    def stat(self, name: str) -> tuple[Value, ...]:
        values = self._stats[name]
        if name.endswith("_cut"):
            return tuple((name, k) for k in range(len(values)))
        if is_row_stat(values):
            return tuple(_leaf("row_param", self.row_params, (name, k)) for k in range(len(values)))
        return tuple(_leaf("param", self.params, ("stat", name, k)) for k in range(len(values)))

    def has(self, name: str) -> bool:
        return name in self._stats

    def uniform(self, model: int) -> Value:
        return Expr("uniform", (model,))

    def rank(self, model: int) -> Value:
        refuse_rank(self._job.method)
        if model not in self.ranks:
            self.ranks.append(model)
        return Expr("rank", (model,))

    def recall(self, model: int, condition: Callable[[], Expr]) -> Value:
        if self._recall == "read":
            self.recalled = True
            return Expr("kept", (model,), boolean=True)
        found = condition()
        if self._recall == "write":
            self.notes[model] = found
        return found

    def before(self, cut: Any) -> Value:
        if is_row_stat(self._stats[cut[0]]):
            return _leaf("row_before", self.row_cuts, cut, boolean=True)
        return _leaf("before", self.cuts, cut, boolean=True)


def refuse_rank(method: Method) -> None:
    """Refuse a rule that ranks without having said that it needs whole rows."""
    if not method.by_row:
        raise RuleError(f"the rule of `{method.name}` ranks within rows, so its method must be `by_row`")


def _leaf(op: str, known: list[Any], place: Any, *, boolean: bool = False) -> Expr:
    if place not in known:
        known.append(place)
    return Expr(op, (known.index(place),), boolean=boolean)

"""Successive halving across members: those that are behind at a rung stop there."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from plait.errors import InputError
from plait.fleet._callbacks import Callback
from plait.fleet._signals import undisturbed

if TYPE_CHECKING:
    from plait.fleet._fleet import Fleet


class SuccessiveHalving(Callback):
    """ASHA's stopping rule (Li et al., arXiv:1810.05934).

    A member that reaches a rung goes on if its validation is within the best 1/η of all that have reached
    that rung, itself included; members are compared within their task. In a fleet all that reach a rung in
    one round are recorded before any is judged, so nothing depends on their order. A value that is no number
    is worse than any other; equal values share their fate.

    Args:
        rungs: steps at which members are judged, at their first validation from then on.
        eta: η; one in so many goes on.

    Raises:
        InputError: no rung, one below 1, or η not above 1.
    """

    def __init__(self, *, rungs: Sequence[int], eta: float = 3) -> None:
        steps: Any = list(rungs) if isinstance(rungs, Iterable) else [rungs]
        whole = all(isinstance(step, Integral) and int(step) >= 1 for step in steps)
        if not steps or not whole or not isinstance(eta, Real) or not 1 < eta < math.inf:
            raise InputError(
                f"rungs {rungs!r} with eta {eta!r} halve nothing",
                hint="rungs are a list of steps, whole numbers from 1 on; eta is a number above 1",
            )
        self.rungs, self.eta = sorted({int(step) for step in steps}), float(eta)
        #: (task, rung) → member → value, larger is better.
        self._reached: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)

    def on_round(self, fleet: Fleet, validated: Sequence[Mapping[str, Any]]) -> None:
        with undisturbed():
            self._judge(fleet, validated)

    def _judge(self, fleet: Fleet, validated: Sequence[Mapping[str, Any]]) -> None:
        new = []
        for record in validated:
            task = fleet._roster.trainees[record["member"]].task
            value = record["value"] if task.metric.higher_is_better else -record["value"]
            for rung in self.rungs:
                held = self._reached[task.name, rung]
                if rung <= record["step"] and record["member"] not in held:
                    held[record["member"]] = -math.inf if math.isnan(value) else value
                    new.append((task.name, rung, record["member"]))
        for name, rung, member in new:
            held = self._reached[name, rung]
            kept = sorted(held.values(), reverse=True)[: math.ceil(len(held) / self.eta)]
            if held[member] < kept[-1]:
                fleet.drop(member, f"behind at step {rung}: not among the best {len(kept)} of {len(held)}")

    def facts(self) -> dict[str, Any]:
        return {"reached": [[*key, held] for key, held in self._reached.items()]}

    def restore(self, facts: Mapping[str, Any]) -> None:
        self._reached.clear()
        for task, rung, held in facts["reached"]:
            self._reached[task, rung] = dict(held)

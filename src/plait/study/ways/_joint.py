"""Joint training: one model that learns all tasks at once, the yardstick of all others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from plait.errors import InputError, nearest
from plait.study._training import fit_one, problems_of_mixture
from plait.study.ways._trained import Trained
from plait.tasks import Suite

if TYPE_CHECKING:
    from plait.study._at import At


class Joint(Trained):
    """`train: joint`; `settings` go before the experts', `weights` are tasks' shares of the examples."""

    kind: ClassVar[str] = "joint"
    of_experts: ClassVar[bool] = False

    train: Literal["joint"]
    weights: dict[str, float] | None = None

    def problems_of_suite(self, suite: Suite, where: str) -> list[InputError]:
        tasks, weights = [task.name for task in suite.tasks], self.weights or {}
        problems = [
            InputError(f"there is no task `{task}`", where=where, hint=nearest(task, tasks))
            for task in weights
            if task not in tasks
        ]
        if weights:
            hint = "every task is measured, so every task is learned"
            problems += [
                InputError(f"`weights` has none for task `{task}`", where=where, hint=hint)
                for task in tasks
                if task not in weights
            ]
        return problems or problems_of_mixture([suite[task] for task in weights or tasks], weights, where)

    def make(self, at: At, folder: Path) -> None:
        tasks: Any = list(at.suite.tasks) if self.weights is None else dict(self.weights)
        fit_one(at, tasks, self.joined(at.study.experts), folder)

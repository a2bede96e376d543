"""Distillation: one student learns all tasks from what the experts, or all of them together, say."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from plait.errors import InputError
from plait.study._distillation import DistillationLoss
from plait.study._models import Averaged
from plait.study._training import fit_one, problems_of_mixture
from plait.study.ways._trained import Trained
from plait.tasks import CrossEntropy, NextToken, SquaredError, Suite, mixture

if TYPE_CHECKING:
    from plait.study._at import At


class Distilled(Trained):
    """`distill: experts` or `distill: ensemble`: a task's teacher is its own expert, or the mean of all.

    Hinton et al., arXiv:1503.02531.
    """

    kind: ClassVar[str] = "student"

    distill: Literal["experts", "ensemble"]
    temperature: float = Field(default=4.0, gt=0, allow_inf_nan=False)
    alpha: float = Field(default=0.9, ge=0, le=1)

    @property
    def method(self) -> str:
        return "arXiv:1503.02531"

    def problems_of_suite(self, suite: Suite, where: str) -> list[InputError]:
        problems = [
            InputError(
                f"task `{task.name}` can't be distilled: its loss is a {type(task.loss).__name__}",
                where=where,
                hint="classes, next tokens and numbers can",
            )
            for task in suite.tasks
            if not isinstance(task.loss, CrossEntropy | NextToken | SquaredError)
        ]
        return problems or problems_of_mixture(suite.tasks, None, where)

    def make(self, at: At, folder: Path) -> None:
        tasks = list(at.suite.tasks)
        bodies = {task.name: at.body(at.experts[task.name]) for task in tasks}
        if self.distill == "experts":
            teachers = [at.on_task(bodies[task.name], task) for task in tasks]
        else:
            teachers = [
                Averaged([at.on_task(each, task) for each in bodies.values()], task) for task in tasks
            ]
        for teacher in teachers:
            teacher.eval()
        mixed = mixture(tasks)
        loss = DistillationLoss(
            mixed.loss, tasks, teachers, self.temperature, self.alpha, mixed.head is not None
        )
        learned = dataclasses.replace(mixed, loss=loss)
        # The loss looks at which rows are whose, which no recorded or vmapped pass can.
        fit_one(at, learned, self.joined(at.study.experts), folder, backend="sequential")

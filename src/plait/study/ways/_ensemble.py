"""All experts, asked at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import nn

from plait.study._models import Averaged
from plait.study.ways._way import Way
from plait.tasks import Task

if TYPE_CHECKING:
    from plait.study._at import At


class Ensemble(Way):
    """`ensemble: probabilities`: the mean of what all experts say, each with the task's head."""

    kind: ClassVar[str] = "ensemble"
    makes: ClassVar[bool] = False
    tunable: ClassVar[bool] = False

    ensemble: Literal["probabilities"]

    def answers(self, at: At, folder: Path | None) -> Callable[[Task], nn.Module]:
        bodies = [at.body(path) for path in at.experts.values()]
        return lambda task: Averaged([at.on_task(body, task) for body in bodies], task)

"""Rich representations: the experts' features side by side, read out by one linear head for each task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn

from plait.checkpoint import save_tensors
from plait.errors import InputError, noted
from plait.study._extras import check_sklearn
from plait.study._models import batches
from plait.study._probe import probed
from plait.study.ways._way import Way
from plait.tasks import Batch, CrossEntropy, SquaredError, Suite, Task, at_rest

if TYPE_CHECKING:
    from plait.study._at import At
    from plait.study._document import StudyDocument
    from plait.study._study import Study


class Concatenated(Way):
    """`concatenate: experts`: CAT-n of Zhang & Bottou (arXiv:2212.07346), with bodies fine-tuned beforehand.

    Each body's features are divided by their root mean square over a task's training examples, so that none
    counts more for its scale; then the best linear head with a `ridge` is found.
    """

    kind: ClassVar[str] = "ensemble"

    concatenate: Literal["experts"]
    ridge: float = Field(default=1e-3, gt=0, allow_inf_nan=False)

    @property
    def method(self) -> str:
        return "arXiv:2212.07346"

    def problems(self, study: StudyDocument, where: str) -> list[InputError]:
        problems = super().problems(study, where)
        with noted(problems):
            check_sklearn("fitting linear probes")
        return problems

    def problems_of_suite(self, suite: Suite, where: str) -> list[InputError]:
        return [
            InputError(
                f"task `{task.name}` has no head that concatenated features could replace",
                where=where,
                hint="this way is for tasks of classes or numbers, whose bodies give features to a head",
            )
            for task in suite.tasks
            if task.head is None or not isinstance(task.loss, CrossEntropy | SquaredError)
        ]

    def splits(self, study: Study) -> tuple[str, ...]:
        del study
        return ("train",)

    def make(self, at: At, folder: Path) -> None:
        bodies = _bodies(at)
        for number, task in enumerate(at.suite.tasks):
            assert task.head is not None
            assert isinstance(task.loss, CrossEntropy | SquaredError)
            rows, labels = list[Tensor](), list[Tensor]()
            for batch in batches(task.split("train")):
                rows.append(torch.cat(_features(bodies, task, batch), 1))
                labels.append(batch[task.loss.label])
            features = torch.cat(rows)
            blocks = features.reshape(len(features), len(bodies), -1).double()
            with torch.no_grad():
                outputs = task.head(blocks[:1, 0].float()).shape[-1]
            scale = blocks.square().mean((0, 2)).sqrt().clamp(min=1e-12)
            features = (blocks / scale[:, None]).flatten(1)
            classes = isinstance(task.loss, CrossEntropy)
            head = probed(features, torch.cat(labels), outputs, self.ridge, classes=classes)
            held = {"weight": head.weight.data, "bias": head.bias.data, "scale": scale.float()}
            save_tensors(held, folder / f"head-{number}.safetensors")

    def answers(self, at: At, folder: Path | None) -> Callable[[Task], nn.Module]:
        assert folder is not None
        bodies, place = _bodies(at), {task.name: n for n, task in enumerate(at.suite.tasks)}
        return lambda task: _Concatenation(
            bodies, task, load_file(str(folder / f"head-{place[task.name]}.safetensors"))
        )


class _Concatenation(nn.Module):
    """Bodies with one head on all their features; called with a batch."""

    def __init__(self, bodies: Sequence[nn.Module], task: Task, held: dict[str, Tensor]) -> None:
        super().__init__()
        self.bodies, self.task, self.scale = nn.ModuleList(bodies), task, held.pop("scale")
        outputs, inputs = held["weight"].shape
        self.head = nn.Linear(inputs, outputs)
        self.head.load_state_dict(held)

    def forward(self, batch: Batch) -> Tensor:
        found = _features(list(self.bodies), self.task, batch)
        return self.head(torch.cat([each / scale for each, scale in zip(found, self.scale, strict=True)], 1))


def _bodies(at: At) -> list[nn.Module]:
    return [at.body(path) for path in at.experts.values()]


def _features(bodies: Sequence[nn.Module], task: Task, batch: Batch) -> list[Tensor]:
    """What each body gives the task's head: `(n, width)`."""
    found = []
    for body in bodies:
        with at_rest(body):
            found.append(task.meet(body, batch).float())
    return found

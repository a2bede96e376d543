"""A task: data, loss, metric, its head, and how a batch meets a model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from plait.errors import InputError, nearest, raise_all
from plait.tasks._copied import copied
from plait.tasks._examples import Batch, Data, Examples, as_examples
from plait.tasks._labels import known_labels, label_problem
from plait.tasks._leaks import leaks
from plait.tasks._losses import CrossEntropy, Loss
from plait.tasks._meet import ByInput, Meet
from plait.tasks._metrics import Metric, accuracy

SPLITS = ("train", "validation", "test", "calibration", "adaptation")


@dataclass(frozen=True)
class Task:
    """What a model does, and how well.

    Args:
        name: in tables and files.
        splits: `train`, `validation`, `test`, and the unlabelled `calibration` and `adaptation`; examples, or
            what `as_examples` takes. None overlaps another.
        loss: what training makes small.
        metric: what is told.
        head: what stands between the body and the loss, and belongs to this task; None if the body has it.
        meet: how a batch meets the body.
        semi_synthetic: whether examples were made up (rendered glyphs), which is told beside every score.
        about: one sentence on what it is and where its data come from.
        classes: what the labels 0, 1, … mean, where that can be shown.
    """

    name: str
    splits: Mapping[str, Examples]
    loss: Loss = field(default_factory=CrossEntropy)
    metric: Metric = field(default_factory=accuracy)
    head: nn.Module | None = None
    meet: Meet = field(default_factory=ByInput)
    semi_synthetic: bool = False
    about: str = ""
    classes: Sequence[str] = ()

    if TYPE_CHECKING:  # it takes more than it has: splits become examples

        def __init__(
            self,
            name: str,
            splits: Mapping[str, Data],
            loss: Loss = ...,
            metric: Metric = ...,
            head: nn.Module | None = None,
            meet: Meet = ...,
            semi_synthetic: bool = False,
            about: str = "",
            classes: Sequence[str] = (),
        ) -> None: ...

    def __post_init__(self) -> None:
        where = f"task `{self.name}`"
        if not isinstance(self.splits, Mapping):
            hint = 'give a mapping such as {"train": (X, y), "test": (X, y)}'
            raise InputError(f"a {type(self.splits).__name__} holds no splits", where=where, hint=hint)
        unknown = [name for name in self.splits if name not in SPLITS]
        if unknown:
            raise InputError(
                f"`{unknown[0]}` is no split", where=where, hint=nearest(str(unknown[0]), SPLITS)
            )
        object.__setattr__(self, "splits", {name: as_examples(data) for name, data in self.splits.items()})
        raise_all(_problems(self))

    def split(self, name: str) -> Examples:
        """A split.

        Raises:
            InputError: the task has none of that name.
        """
        if name not in self.splits:
            raise InputError(f"there is no split `{name}`", where=f"task `{self.name}`", hint=_has(self))
        return self.splits[name]

    def with_body(self, body: nn.Module, *, copy_body: bool = True) -> nn.Module:
        """The body with a copy of this task's head; the body alone if it has none."""
        body = copied(body) if copy_body else body
        return body if self.head is None else Headed(body, copied(self.head), self.meet, self.name)

    def outputs(self, model: Callable[..., Any], batch: Batch) -> Any:
        """What a model with this task's head (or one that needs none) gives for a batch."""
        return model(batch) if self.head is not None else self.meet(model, batch)

    def renamed(self, name: str) -> Task:
        """The same task under another name."""
        return self._changed("name", name)

    def with_head(self, head: nn.Module) -> Task:
        """The same task with another head, of the same shape."""
        return self._changed("head", head)

    def _changed(self, name: str, value: Any) -> Task:
        other = copy.copy(self)  # its data were looked through already
        object.__setattr__(other, name, value)
        return other


class Headed(nn.Module):
    """A body and a task's head, called with a batch; its state has them under `body.` and `head.`.

    Args:
        body: gives the head its features.
        head: the task's.
        meet: how a batch meets the body.
        task: the task's name, so that the head is known as its; None if that is not to be known.
    """

    def __init__(self, body: nn.Module, head: nn.Module, meet: Meet, task: str | None = None) -> None:
        super().__init__()
        self.body, self.head, self.meet = body, head, meet
        self._task = task  # a name alone: networks of two tasks are of one kind

    @property
    def task(self) -> str | None:
        """The name of the task whose head it is, if that is known."""
        return self._task

    def forward(self, batch: Batch) -> Any:
        return self.head(self.meet(self.body, batch))


def _has(task: Task) -> str:
    return "it has " + ", ".join(f"`{name}`" for name in task.splits) if task.splits else "it has none"


def _problems(task: Task) -> list[InputError]:
    """Empty splits, labels that a head has no class for, and sources in two splits."""
    where = f"task `{task.name}`"
    problems = [
        InputError(f"split `{name}` is empty", where=where, hint="every split needs an example")
        for name, examples in task.splits.items()
        if len(examples) == 0
    ]
    if isinstance(task.loss, CrossEntropy):
        for name, examples in task.splits.items():
            labels = known_labels(examples, task.loss.label) if len(examples) else None
            wrong = (
                None if labels is None else label_problem(labels, _classes(task), f"{where}, split `{name}`")
            )
            problems += [wrong] if wrong is not None else []
    return problems + leaks(task.splits, getattr(task.loss, "label", None), where)


def _classes(task: Task) -> int | None:
    last = [module for module in task.head.modules() if isinstance(module, nn.Linear)] if task.head else []
    return last[-1].out_features if last else None

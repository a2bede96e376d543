"""What a report is made of: tidy tables, however they were obtained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.report._check_results import check_arrays, check_scores
from plait.tasks import Scores, marked

#: Kinds that don't compete, since such a model is several, or is not made of the experts; all others do.
KINDS = ("base", "joint", "ensemble", "federated", "experts")
#: What those that compete are.
SINGLE = "single model made of the experts"


@dataclass(frozen=True)
class Setting:
    """One setting that was tried while tuning a way, on a split other than the scored one as a rule.

    Args:
        way: name of the model that it is a setting of.
        options: name → value.
        value: the score that settings were chosen by, in the metric's unit; NaN if there is none.
        metric: its name.
        chosen: whether this setting was taken.
        seed: of the run.
        higher_is_better: which way of the metric is better.
        failed: why nothing came of it; empty if something did.
    """

    way: str
    options: Mapping[str, float | str]
    value: float
    metric: str
    chosen: bool = False
    seed: int = 0
    higher_is_better: bool = True
    failed: str = ""

    @property
    def told(self) -> str:
        """The setting in words: `density=0.2, scale=0.3`."""
        parts = (f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.options.items())
        return ", ".join(parts) or "–"


@dataclass(frozen=True, eq=False)
class Curve:
    """How training went for one member.

    Args:
        member: its name.
        step: `(n,)`, optimiser steps, or what `x` says.
        value: `(n,)`, the loss (nats, or the loss's own unit) or the metric at each.
        kind: `loss`, or the metric's name.
        seed: of the run.
        x: what `step` counts.
        target: the value that was wanted, if one was.
    """

    member: str
    step: NDArray[Any]
    value: NDArray[Any]
    kind: str = "loss"
    seed: int = 0
    x: str = "step"
    target: float | None = None


@dataclass(frozen=True)
class Reached:
    """When, in simulated time, a model was as good on a task as was wanted.

    Args:
        model: its name.
        task: on which.
        target: the validation score that was wanted.
        time: when it was reached; NaN if it never was.
        seed: of the run.
    """

    model: str
    task: str
    target: float
    time: float
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Similarity:
    """How task vectors lie to each other.

    Args:
        names: of the k experts.
        cosine: `(k, k)`, cosines of their task vectors, from −1 to 1.
        layers: names of the layers, in the network's order.
        conflict: `(layers,)`, the share of entries, 0 to 1, that experts pull in opposite directions.
    """

    names: Sequence[str]
    cosine: NDArray[Any]
    layers: Sequence[str] = ()
    conflict: NDArray[Any] = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Cost:
    """What one step took.

    Args:
        step: its name.
        seconds: of wall time, of all its pieces if it was killed and gone on with; NaN if not measured.
        peak_mb: most memory held at once, in 10⁶ bytes; NaN if not measured.
        cached: whether it was found instead of run; the numbers are then those of the run that made it.
    """

    step: str
    seconds: float
    peak_mb: float
    cached: bool = False


@dataclass(frozen=True, eq=False)
class Picture:
    """An example that can be looked at, and what models said of it.

    Args:
        task: its task.
        image: `(height, width)`, grey from 0 (black) to 1 (white).
        label: what is right.
        said: model → what it said.
        right: model → whether that is right.
    """

    task: str
    image: NDArray[Any]
    label: str
    said: Mapping[str, str]
    right: Mapping[str, bool]


@dataclass(frozen=True, eq=False)
class Results:
    """All that a report tells.

    Args:
        title: of the page.
        about: a sentence or two below it.
        scores: a table for each seed, with the same models, tasks and metrics.
        seeds: of each table.
        experts: the model that the others are normalised by: on each task, that task's own expert.
        reference: the model that the others are tested against, such as plain averaging.
        groups: model → kind: `base`, `merge`, `student`, `joint`, `ensemble`, `federated`, `experts`. A model
            that is not there is of the kind that it is named as, or a merge.
        methods: model → name of plait's merging method, or `arXiv:` and a number, for references.
        trials: settings tried.
        budget: how many settings each way may try.
        split: that the scores are of.
        tuned_on: the split that settings were chosen on.
        curves: of training.
        reached: when models were as good as was wanted, where time is simulated.
        similarity: of task vectors.
        costs: of each step, in order.
        pictures: examples to look at, of the split that is scored, and what the first seed's models say.
        drawn: how the pictures were drawn, in words that go on after `64 test pictures`.
        missing: task → why it is not here.
        notes: further sentences that a reader must know.
        expected: pairs of models, of which the first was expected to be better.

    Raises:
        InputError: tables do not belong together, or a name has no scores.
    """

    title: str
    about: str
    scores: Sequence[Scores]
    seeds: Sequence[int]
    experts: str = "experts"
    reference: str | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    methods: Mapping[str, str] = field(default_factory=dict)
    trials: Sequence[Setting] = ()
    budget: int | None = None
    split: str = "test"
    tuned_on: str = "validation"
    curves: Sequence[Curve] = ()
    reached: Sequence[Reached] = ()
    similarity: Similarity | None = None
    costs: Sequence[Cost] = ()
    pictures: Sequence[Picture] = ()
    drawn: str = ""
    missing: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    expected: Sequence[tuple[str, str]] = ()

    def __post_init__(self) -> None:
        check_scores(self)
        check_arrays(self)

    @property
    def models(self) -> list[str]:
        """Names of the models, in order."""
        return self.scores[0].models

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, in order."""
        return self.scores[0].tasks

    def kind(self, model: str) -> str:
        """`base`, `merge`, `student`, `joint`, `ensemble`, `federated`, `experts`, or what `groups` says."""
        if model == self.experts:
            return "experts"
        return self.groups.get(model, model if model in KINDS else "merge")

    def competes(self, model: str) -> bool:
        """Whether a model is one that was made of the experts, not a starting point or a yardstick."""
        return self.kind(model) not in KINDS

    def label(self, name: str) -> str:
        """A name as it is shown beside scores: marked if it is, or after `WAY: `, a semi-synthetic task's."""
        return marked(name, not self.semi_synthetic.isdisjoint((name, name.rpartition(": ")[2])))

    @property
    def favoured(self) -> bool:
        """Whether settings were chosen by the same examples that the scores are of."""
        return bool(self.trials) and self.tuned_on == self.split

    @property
    def semi_synthetic(self) -> set[str]:
        """Tasks whose examples were made."""
        return {row.task for row in self.scores[0] if row.semi_synthetic}

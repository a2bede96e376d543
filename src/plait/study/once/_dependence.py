"""Whether experiments that share a run change each other's numbers, tested by brief continuations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from plait.errors import InputError
from plait.report import bibtex
from plait.study.once._continuations import Continuations
from plait.study.once._experiment import Experiment, check_names
from plait.study.once._significance import holm, paired_t, sign_flips, student_quantile
from plait.study.once._train_once import PUBLICATION, Backend, Model
from plait.tasks import Task

Test = Literal["t", "signs"]
Floats = NDArray[np.float64]
#: What stands for all experiments together.
ALL = "all"


@dataclass(frozen=True)
class Effect:
    """What data do to an experiment's number, over seeds.

    Args:
        data: whose data are put in; `all` for those of all experiments.
        on: whose number is read.
        mean: of the difference over seeds.
        low, high: its interval by Student's t, for this difference alone, at 1 − alpha.
        p: two-sided.
        adjusted: p by Holm's method over all differences of one kind.
        found: whether that is at most alpha.
    """

    data: str
    on: str
    mean: float
    low: float
    high: float
    p: float
    adjusted: float
    found: bool


@dataclass(frozen=True)
class Dependence:
    """What a test for dependence found.

    Args:
        experiments: names.
        seeds: of the continuations.
        values: `(seeds, n + 2, n)`: each experiment's number after the data of no experiment, of each alone,
            and of all.
        own: what each experiment's data do to its own number, against none.
        cross: what they do to the others', against none.
        joint: what all experiments' data do, against the experiment's own alone.
        alpha: level, over `cross` and `joint` together; and over `own`.
        test: `t` or `signs`.
    """

    experiments: tuple[str, ...]
    seeds: tuple[int, ...]
    values: Floats
    own: tuple[Effect, ...]
    cross: tuple[Effect, ...]
    joint: tuple[Effect, ...]
    alpha: float
    test: Test

    @property
    def dependent(self) -> tuple[Effect, ...]:
        """Effects on another experiment's number that were found."""
        return tuple(effect for effect in (*self.cross, *self.joint) if effect.found)

    @property
    def matrix(self) -> Floats:
        """`(n + 1, n)`: the mean effect of each one's data, and of all, on each number, against none."""
        return (self.values[:, 1:] - self.values[:, :1]).mean(0)

    @property
    def bibtex(self) -> str:
        """The publication of what this is, to be cited."""
        return bibtex(PUBLICATION)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self) | {"values": self.values.tolist(), "matrix": self.matrix.tolist()}


def dependence(
    experiments: Sequence[Experiment],
    task: Task,
    *,
    start: Model,
    seeds: Sequence[int] = range(5),
    alpha: float = 0.05,
    test: Test = "t",
    backend: Backend = "sequential",
    device: str | torch.device = "cpu",
    out: str | Path | None = None,
    **settings: Any,
) -> Dependence:
    """Continue a training briefly with each experiment's data alone, with all, and with none; compare.

    For each seed these continuations are the members of one fleet. They see the same examples in the same
    order, and an experiment's sequences stand in the same places, unless another's stand there. An
    experiment's number should change by its own data alone, and by all data as by its own. Differences are
    paired by seed and tested two-sided, by Student's t or by flipping signs, corrected by Holm's method.

    That no dependence is found does not say that there is none: `low` and `high` say how large it may be.
    Differences of pairs miss what three do together; `joint` does not.

    Args:
        experiments: two or more.
        task: as for `train_once`.
        start: a checkpoint's network, in the midst of training; copied.
        seeds: of the data's order, draws and places; two or more.
        alpha: the probability with which any independent effect is taken for a dependence.
        test: `t` takes differences for normal; `signs` for symmetric, and needs more seeds.
        backend: of the fleets.
        device: where to train.
        out: a folder where the numbers of each seed are kept once it is done, so that a killed test, or one
            of more seeds, goes on with the others. They are taken for the same start, task, settings,
            sequences and code of probes; data that a probe reads out of global variables are not looked at.
            Nothing is written without.
        settings: of the continuation, as for `Member`.

    Raises:
        InputError: as for `train_once`; too few experiments or seeds; `out` has other files, or another test
            is at work there.
    """
    check_names(experiments)
    seeds = [int(seed) for seed in seeds]
    _check(len(experiments), seeds, alpha, test)
    brief = Continuations(experiments, task, start, backend, device, settings)
    values = np.array(
        [brief.numbers(seed) for seed in seeds] if out is None else brief.kept(seeds, Path(out))
    )
    return compared([each.name for each in experiments], seeds, values, alpha=alpha, test=test)


def _check(count: int, seeds: Sequence[int], alpha: float, test: str) -> None:
    if count < 2:
        raise InputError("dependence is between two experiments or more", hint="give two")
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        raise InputError(f"`seeds` are {list(seeds)}", hint="give two or more, each once")
    if not 0 < alpha < 1:
        raise InputError(f"`alpha` is {alpha!r}", hint="it is a level between 0 and 1, such as 0.05")
    if test not in ("t", "signs"):
        raise InputError(f"there is no test `{test}`", hint="`t` or `signs`")
    # All signs alike are 2 of 2^seeds, and Holm's method multiplies by the number of tests.
    need = int(np.ceil(np.log2(2 * count**2 / alpha)))
    if test == "signs" and len(seeds) < need:
        what = f"with {len(seeds)} seeds none of {count**2} effects can be found at {alpha}"
        raise InputError(what, hint=f"give {need} seeds, or take the test `t`")


def compared(
    names: Sequence[str], seeds: Sequence[int], values: Floats, *, alpha: float = 0.05, test: Test = "t"
) -> Dependence:
    """The test on numbers that are there.

    Args:
        names: of the experiments.
        seeds: of the continuations.
        values: as `Dependence` has them.
        alpha: level.
        test: `t` or `signs`.
    """
    count = len(names)
    none, alone, every = values[:, 0], values[:, 1:-1], values[:, -1]
    change = alone - none[:, None]
    own = [(i, i, change[:, i, i]) for i in range(count)]
    cross = [(j, i, change[:, j, i]) for j in range(count) for i in range(count) if i != j]
    joint = [(None, i, every[:, i] - alone[:, i, i]) for i in range(count)]
    tested = [_effects(names, part, alpha, test) for part in (own, cross + joint)]
    return Dependence(
        experiments=tuple(names),
        seeds=tuple(seeds),
        values=values,
        own=tested[0],
        cross=tested[1][: len(cross)],
        joint=tested[1][len(cross) :],
        alpha=alpha,
        test=test,
    )


def _effects(
    names: Sequence[str], parts: Sequence[tuple[int | None, int, Floats]], alpha: float, test: Test
) -> tuple[Effect, ...]:
    differences = np.stack([own for _, _, own in parts], axis=1)
    p = paired_t(differences) if test == "t" else sign_flips(differences)
    count = len(differences)
    reach = student_quantile(alpha, count - 1) * differences.std(0, ddof=1) / np.sqrt(count)
    return tuple(
        Effect(
            data=ALL if data is None else names[data],
            on=names[on],
            mean=float(mean),
            low=float(mean - width),
            high=float(mean + width),
            p=float(one),
            adjusted=float(two),
            found=bool(two <= alpha),
        )
        for (data, on, _), mean, width, one, two in zip(
            parts, differences.mean(0), reach, p, holm(p), strict=True
        )
    )

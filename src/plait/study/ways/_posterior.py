"""Branch-Train-Merge: experts of domains, weighed by how likely a text is of each one's domain."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from plait.errors import InputError, nearest
from plait.study._domains import SPLIT, domain_weights
from plait.study._language import problems_of_language
from plait.study._mixing import TokenMixture, kept
from plait.study._posterior import log_posterior
from plait.study._whole import write_json
from plait.study.ways._merge import woven
from plait.study.ways._way import Way
from plait.tasks import Suite, Task

if TYPE_CHECKING:
    from plait.study._at import At
    from plait.study._document import StudyDocument
    from plait.study._study import Study

#: Task → expert → its weight before anything was read.
WEIGHTS = "weights.json"


class Posterior(Way):
    """`posterior: ensemble`: at each token, an expert counts by how likely what came before is of its domain.
    `posterior: average`: one model for each target domain, Σ_j π_j θ_j with the domain's prior.

    Li et al., arXiv:2208.03306. Both know which domain they are asked of (its prior is out of its validation
    split), unless the prior is uniform; the average is a model for each, so that both stand with ensembles.
    """

    kind: ClassVar[str] = "ensemble"

    posterior: Literal["ensemble", "average"]
    prior: Literal["cached", "uniform"] = "cached"
    form: Literal["prefix", "token"] = "prefix"
    top: int | None = Field(default=None, ge=1)
    experts: list[str] | None = Field(default=None, min_length=1)

    @property
    def method(self) -> str:
        return "arXiv:2208.03306"

    def problems(self, study: StudyDocument, where: str) -> list[InputError]:
        del study
        if self.posterior == "average" and self.prior == "uniform":
            what = "an average with a uniform prior knows no posterior"
            return [InputError(what, where=where, hint="it is `merge: linear`")]
        return []

    def problems_of_suite(self, suite: Suite, where: str) -> list[InputError]:
        problems = problems_of_language(suite, "a domain posterior", where)
        tasks = [task.name for task in suite.tasks]
        for place, name in enumerate(self.experts or ()):
            if name not in tasks:
                what = f"there is no expert `{name}`"
                problems.append(InputError(what, where=where, hint=nearest(name, tasks)))
            elif name in (self.experts or ())[:place]:
                problems.append(InputError(f"expert `{name}` is there twice", where=where))
        if self.prior == "cached":
            problems += [
                InputError(
                    f"task `{task.name}` has no split `{SPLIT}`, which a cached prior is of", where=where
                )
                for task in suite.tasks
                if SPLIT not in task.splits
            ]
        return problems

    def splits(self, study: Study) -> tuple[str, ...]:
        del study
        return (SPLIT,) if self.prior == "cached" else ()

    def make(self, at: At, folder: Path) -> None:
        experts, weights = self._experts(at), _read(folder)
        for number, task in enumerate(at.suite.tasks):
            if task.name not in weights:
                weights[task.name] = self._weights(at, task, experts)
                write_weights(weights, folder)
            place = folder / f"model-{number}"
            if self.posterior == "average" and not place.is_dir():
                averaged(experts, self._top(weights[task.name]), at.base, place)

    def answers(self, at: At, folder: Path | None) -> Callable[[Task], nn.Module]:
        assert folder is not None
        if self.posterior == "average":
            number = {task.name: place for place, task in enumerate(at.suite.tasks)}
            return lambda task: at.body(folder / f"model-{number[task.name]}")
        experts, weights = self._experts(at), _read(folder)
        bodies = [at.body(path) for path in experts.values()]

        def answer(task: Task) -> nn.Module:
            prior = torch.tensor([weights[task.name][name] for name in experts], dtype=torch.float64)
            return TokenMixture(bodies, partial(log_posterior, prior=prior, form=self.form), self.top)

        return answer

    def _experts(self, at: At) -> dict[str, Path]:
        """Those that take part, in the suite's order."""
        return {name: at.experts[name] for name in at.experts if self.experts is None or name in self.experts}

    def _weights(self, at: At, task: Task, experts: Mapping[str, Path]) -> dict[str, float]:
        if self.prior == "uniform":
            return dict.fromkeys(experts, 1 / len(experts))
        return domain_weights(at, task, experts, self.form)

    def _top(self, weights: Mapping[str, float]) -> dict[str, float]:
        logs = torch.tensor(list(weights.values()), dtype=torch.float64).log()
        return dict(zip(weights, kept(logs, self.top).exp().tolist(), strict=True))


def averaged(experts: Mapping[str, Path], weights: Mapping[str, float], base: Path, out: Path) -> None:
    """Σ_j w_j θ_j / Σ_j w_j as a folder, which is whole or not there.

    Args:
        experts: name → folder.
        weights: name → w, for some or all of the experts.
        base: the base's folder.
        out: the folder.
    """
    begun = out.with_name(f"{out.name}.partial")
    shutil.rmtree(begun, ignore_errors=True)
    models: dict[str, Any] = {name: experts[name] for name, weight in weights.items() if weight}
    options = {"weight": [weights[name] for name in models]}
    woven("linear", options, models, base, 0, begun)
    begun.rename(out)


def write_weights(weights: Mapping[str, Any], folder: Path) -> None:
    """Put weights into a folder, in a file that is whole whenever it is there."""
    write_json(weights, folder / WEIGHTS)


def _read(folder: Path) -> dict[str, dict[str, float]]:
    """The weights, as far as they are known."""
    file = folder / WEIGHTS
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

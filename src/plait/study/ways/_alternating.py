"""Alternating tuning and merging (ATM): rounds of a little training, each from the merge of the last."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field
from torch import nn

from plait.errors import InputError
from plait.study._at import read_index
from plait.study._training import (
    METRICS,
    backend_of,
    fit,
    later_seed,
    write_index,
)
from plait.study._whole import write_text
from plait.study.ways._merge import problems_of_method, woven
from plait.study.ways._trained import Trained
from plait.tasks import Task

if TYPE_CHECKING:
    from plait.study._at import At
    from plait.study._document import StudyDocument

#: What a finished round became.
_MERGED = "merged"


class Alternating(Trained):
    """`alternate: METHOD`: in each of `rounds`, θₖ learns every task a little, and is merged to θₖ₊₁.

    The experts' length is that of all rounds together, so that it costs what they cost. With `linear` it is
    the paper's update with α = 1, with `task_arithmetic` and `lambda` that with α = T·λ. Heads stay with
    their tasks; an optimizer begins anew in each round. Zhou et al., arXiv:2411.03055, algorithm 1.
    """

    of_experts: ClassVar[bool] = False

    alternate: str
    rounds: int = Field(default=10, ge=1)
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def method(self) -> str:
        return "arXiv:2411.03055"

    def problems(self, study: StudyDocument, where: str) -> list[InputError]:
        settings = self.joined(study.experts)
        problems = super().problems(study, where) + problems_of_method(self.alternate, self.options, where)
        steps = settings.get("steps")
        if not problems and steps is not None and steps < self.rounds:
            what = f"{steps} steps can't be shared by {self.rounds} rounds"
            problems.append(InputError(what, where=where, hint="give fewer `rounds`, or more `steps`"))
        return problems

    def facts(self, at: At) -> dict[str, Any]:
        return super().facts(at) | {"backend": at.study.backend}

    def make(self, at: At, folder: Path) -> None:
        if (folder / "model").is_dir():
            return  # it is put there last
        rounds = [folder / f"round-{number}" for number in range(self.rounds)]
        done = max((n for n, place in enumerate(rounds) if (place / _MERGED).is_dir()), default=-1)
        for number in range(done + 1, self.rounds):
            self._round(at, number, rounds)
            if number:  # what a round started from is no longer needed
                shutil.rmtree(rounds[number - 1] / _MERGED)
                shutil.rmtree(rounds[number - 1] / "models")
        _join_metrics(rounds, folder / METRICS)
        write_index(read_index(rounds[-1]), folder)
        (rounds[-1] / _MERGED).rename(folder / "model")

    def _round(self, at: At, number: int, rounds: list[Path]) -> None:
        """One round; it is finished when its merge is there."""
        place, start, tasks = rounds[number], at.base, list(at.suite.tasks)
        if number:
            start, before = rounds[number - 1] / _MERGED, read_index(rounds[number - 1])
            tasks = [at.with_head_of(task, before[task.name]) for task in tasks]
        settings = self.joined(at.study.experts)
        length = "steps" if settings.get("steps") is not None else "epochs"
        settings[length] = _part(settings[length], number, self.rounds)
        backend = at.study.backend if number == 0 else backend_of(rounds[0])
        seed = later_seed(at.seed, number)
        learned = {task.name: task for task in tasks}
        saved = fit(at, learned, settings, place, backend=backend, start=start, seed=seed)
        write_index(saved, place)
        partial = place / f"{_MERGED}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        woven(self.alternate, self.options, saved, start, at.seed, partial)
        partial.rename(place / _MERGED)

    def answers(self, at: At, folder: Path | None) -> Callable[[Task], nn.Module]:
        assert folder is not None
        return at.one(folder / "model", read_index(folder))


def _part(length: float, number: int, rounds: int) -> float:
    """A round's share of the length: whole steps that sum up to all of them."""
    if isinstance(length, int):
        return length * (number + 1) // rounds - length * number // rounds
    return length / rounds


def _join_metrics(rounds: list[Path], target: Path) -> None:
    """The records of all rounds, with steps that go on counting."""
    lines, before = [], dict[str, int]()
    for place in rounds:
        last: dict[str, int] = {}
        for line in (place / METRICS).read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            last[record["member"]] = record["step"]
            record["step"] += before.get(record["member"], 0)
            lines.append(json.dumps(record))
        before = {name: before.get(name, 0) + step for name, step in last.items()}
    write_text("".join(f"{line}\n" for line in lines), target)

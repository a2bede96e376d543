"""Brief continuations of a training: with the data of no experiment, of each alone, and of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from plait.engine._lock import locked
from plait.errors import InputError
from plait.fleet import Fleet
from plait.fleet._identity import identity
from plait.study._code import code_of
from plait.study._facts import of_network, of_task
from plait.study._steps import Step, run_steps
from plait.study.once._experiment import Experiment
from plait.study.once._members import check_tokens, fitted, learning, once_member
from plait.study.once._placement import place
from plait.study.once._stream import run_of
from plait.study.once._train_once import Backend, Model
from plait.tasks import Task

_VALUES = "values.npy"


@dataclass(frozen=True)
class Continuations:
    """Those of one start, for any seed.

    Args:
        experiments: whose data are put in, and whose numbers are read.
        task: that is trained on.
        start: a network, copied, or a function that makes one.
        backend: of the fleets.
        device: where to train.
        settings: of the members.
    """

    experiments: Sequence[Experiment]
    task: Task
    start: Model
    backend: Backend
    device: str | torch.device
    settings: Mapping[str, Any]

    def numbers(self, seed: int) -> NDArray[np.float64]:
        """Each experiment's number `(n + 2, n)` after the data of none, of each alone, and of all."""
        drawn = [each.drawn(seed) for each in self.experiments]
        run = run_of(self.task, once_member("run", self.task, seed, dict(self.settings)))
        given = [[], *([each] for each in drawn), drawn]
        members = [
            learning(run, run.inserted(place(own, run.ground(), seed)), str(number))
            for number, own in enumerate(given)
        ]
        fleet = Fleet(members, model=self.start, backend=self.backend, device=self.device)
        check_tokens(fleet["0"], self.task, drawn)
        fitted(fleet)
        found = []
        for member, own in zip(members, given, strict=True):
            told = " and ".join(f"`{each.name}`" for each in own) or "none"
            network, when = (
                fleet[member.name],
                f"after {run.steps} steps with the data of {told}, seed {seed}",
            )
            found.append([each.read(network, when) for each in drawn])
        return np.array(found)

    def kept(self, seeds: Sequence[int], out: Path) -> list[NDArray[np.float64]]:
        """The numbers of each seed; those that a folder has already are not made again.

        Raises:
            InputError: it is another's folder, or another test is at work there.
        """
        if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "steps").is_dir()):
            hint = "give a new one, or that of an earlier test"
            raise InputError("it is there and no test's folder", where=str(out), hint=hint)
        (out / "steps").mkdir(parents=True, exist_ok=True)
        facts, found = self._facts(), []
        with locked(out / "run"):
            for seed in seeds:
                step = Step(f"seed {seed}", facts | self._drawn(seed), self._work(seed))
                hint = "the numbers of seeds that are done are kept"
                done = run_steps([step], out, resume=False, hint=hint)[step.name]
                found.append(np.load(out / done.folder / _VALUES))
        return found

    def _work(self, seed: int) -> Any:
        return lambda folder, _: np.save(folder / _VALUES, self.numbers(seed))

    def _facts(self) -> dict[str, Any]:
        """What numbers depend on besides the seed."""
        probes = [each.probe for each in self.experiments]
        return {
            "start": self._of_start(),
            "task": of_task(self.task),
            "settings": {name: identity(value) for name, value in self.settings.items()},
            "fleet": [self.backend, str(self.device)],
            "probes": [identity(probe) for probe in probes],
            "code": code_of([*probes, *map(type, probes)]),
        }

    def _drawn(self, seed: int) -> dict[str, Any]:
        """What is put in for a seed."""
        drawn = [each.drawn(seed) for each in self.experiments]
        return {"seed": seed, "drawn": [[each.name, each.sequences, each.repeats] for each in drawn]}

    def _of_start(self) -> dict[str, Any]:
        if isinstance(self.start, nn.Module):
            return of_network(self.start)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return of_network(self.start()) | {"made": identity(self.start)}

"""Many experiments in one run: Train Once, Answer All (Bordt & Pawelczyk, arXiv:2509.23383)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from plait.fleet import Fleet
from plait.report import bibtex
from plait.study.once._controller import Controlled, Controller, Reading
from plait.study.once._experiment import Drawn, Experiment, check_names
from plait.study.once._members import check_tokens, fitted, learning, once_member
from plait.study.once._placement import Ground, Place, place
from plait.study.once._stream import run_of
from plait.tasks import Task

Backend = Literal["sequential", "stacked", "auto"]
Model = nn.Module | Callable[[], nn.Module]
RUN, CONTROL = "run", "control"
PUBLICATION = "arXiv:2509.23383"


@dataclass(frozen=True)
class Outcome:
    """What a run says of one experiment.

    Args:
        experiment: its name.
        tokens: that were put in for it.
        share: of all positions of the run.
        before: its number Y before the run.
        value: after it.
        control: after the same run without any experiment; None if there was none.
        readings: of its controller, if it has one.
    """

    experiment: str
    tokens: int
    share: float
    before: float
    value: float
    control: float | None
    readings: tuple[Reading, ...] = ()


@dataclass(frozen=True)
class Once:
    """A run with all its experiments.

    Args:
        outcomes: one for each experiment.
        places: of all that was put in.
        steps: of the run.
        tokens: positions of the run.
        network: that the run ended with.
        control: the network of the run without experiments, if there was one.
    """

    outcomes: tuple[Outcome, ...]
    places: tuple[Place, ...]
    steps: int
    tokens: int
    network: nn.Module
    control: nn.Module | None

    def __getitem__(self, experiment: str) -> Outcome:
        return next(each for each in self.outcomes if each.experiment == experiment)

    @property
    def bibtex(self) -> str:
        """The publication of what this is, to be cited."""
        return bibtex(PUBLICATION)

    def to_dict(self) -> dict[str, Any]:
        """Steps, tokens and outcomes as plain values."""
        return {
            "steps": self.steps,
            "tokens": self.tokens,
            "outcomes": [asdict(each) for each in self.outcomes],
        }


def train_once(
    experiments: Sequence[Experiment | Controlled],
    task: Task,
    *,
    model: Model,
    seed: int = 0,
    control: bool = True,
    backend: Backend = "sequential",
    device: str | torch.device = "cpu",
    out: str | Path | None = None,
    save_every: int = 0,
    resume: bool = False,
    **settings: Any,
) -> Once:
    """Train a language model once, with many experiments on its data, and read each one's number.

    Each repeat of each sequence takes the place of as many tokens of the run, anywhere in it with the same
    probability, within one document and upon no other. A sequence longer than the longest document is cut
    into parts of that length, each placed for itself. Without experiments the run is, bit for bit, that of a
    fleet's member with the same settings and `drop_last`.

    Args:
        experiments: what is put into the run's data, and read.
        task: of next tokens, such as `language_task` makes; its training split is learned from.
        model: where the run starts; a module (copied) or a function that makes one, under the seed.
        seed: of the data's order, of draws and places.
        control: whether the same run without any experiment is trained beside it.
        backend: of the fleet.
        device: where to train.
        out: a folder for saves and records of the loss; nothing is written without.
        save_every: steps between saves; 0 for the end alone.
        resume: go on from the last save in `out`, controllers too; start if there is none.
        settings: of the run, as for `Member` (`steps`, `lr`, `batch_size`, …).

    Raises:
        InputError: two experiments of one name; sequences that hold no tokens of the model, or for which
            there is no room; a probe that gives no number; a run that fails; a save of another run.
    """
    plain = [each.experiment if isinstance(each, Controlled) else each for each in experiments]
    check_names(plain)
    run = run_of(task, once_member(RUN, task, seed, settings))
    drawn = [each.drawn(seed) for each in plain]
    ground = run.ground()
    fixed = [d for d, each in zip(drawn, experiments, strict=True) if not isinstance(each, Controlled)]
    places = place(fixed, ground, seed)
    examples = run.inserted(places)
    members = [learning(run, examples, RUN, _digest(experiments, drawn, places))]
    if control:
        members.append(learning(run, run.inserted([]), CONTROL))
    fleet = Fleet(members, model=model, backend=backend, device=device, out=out, save_every=save_every)
    start = fleet[RUN]
    check_tokens(start, task, drawn)
    before = [each.read(start, "before the run") for each in drawn]
    controllers = {
        each.name: Controller(own, each, run, ground, examples, RUN, seed)
        for own, each in zip(experiments, drawn, strict=True)
        if isinstance(own, Controlled)
    }
    fitted(fleet, list(controllers.values()), resume=resume)
    places += [spot for controller in controllers.values() for spot in controller.places]
    network, without = fleet[RUN], fleet[CONTROL] if control else None
    return Once(
        outcomes=_outcomes(drawn, before, network, without, places, ground, controllers),
        places=tuple(places),
        steps=run.steps,
        tokens=len(ground.taken),
        network=network,
        control=without,
    )


def _outcomes(
    drawn: Sequence[Drawn],
    before: Sequence[float],
    network: nn.Module,
    control: nn.Module | None,
    places: Sequence[Place],
    ground: Ground,
    controllers: dict[str, Controller],
) -> tuple[Outcome, ...]:
    found = []
    for each, start in zip(drawn, before, strict=True):
        tokens = sum(len(spot.tokens) for spot in places if spot.experiment == each.name)
        found.append(
            Outcome(
                experiment=each.name,
                tokens=tokens,
                share=tokens / len(ground.taken),
                before=start,
                value=each.read(network, "after the run"),
                control=None if control is None else each.read(control, "after the control's run"),
                readings=tuple(controllers[each.name].readings) if each.name in controllers else (),
            )
        )
    return tuple(found)


def _digest(
    experiments: Sequence[Experiment | Controlled], drawn: Sequence[Drawn], places: Sequence[Place]
) -> str:
    """The same for the same data: what is placed, and what controllers may place."""
    rules = [
        (each.name, each.sequences, each.repeats, own.target, own.every, own.rate, own.factor, own.most)
        for own, each in zip(experiments, drawn, strict=True)
        if isinstance(own, Controlled)
    ]
    found = hashlib.blake2b(repr((list(places), rules)).encode(), digest_size=8).hexdigest()
    return found if places or rules else ""

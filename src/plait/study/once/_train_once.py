"""Many experiments in one run: Train Once, Answer All (Bordt & Pawelczyk, arXiv:2509.23383)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from plait.errors import InputError
from plait.fleet import Fleet, Member
from plait.study.once._controller import Controlled, Controller, Reading
from plait.study.once._experiment import Drawn, Experiment, check_names
from plait.study.once._placement import Ground, Place, place
from plait.study.once._stream import Inserted, Run, run_of
from plait.tasks import Task, at_rest

Backend = Literal["sequential", "stacked", "auto"]
Model = nn.Module | Callable[[], nn.Module]
RUN, CONTROL = "run", "control"


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
        settings: of the run, as for `Member` (`steps`, `lr`, `batch_size`, …).

    Raises:
        InputError: two experiments of one name; sequences that hold no tokens of the model, or for which
            there is no room; a probe that gives no number; a run that fails.
    """
    plain = [each.experiment if isinstance(each, Controlled) else each for each in experiments]
    check_names(plain)
    run = run_of(task, once_member(RUN, task, seed, settings))
    drawn = [each.drawn(seed) for each in plain]
    ground = run.ground()
    fixed = [d for d, each in zip(drawn, experiments, strict=True) if not isinstance(each, Controlled)]
    places = place(fixed, ground, seed)
    examples = run.inserted(places)
    members = [learning(run, examples, RUN)]
    if control:
        members.append(learning(run, run.inserted([]), CONTROL))
    fleet = Fleet(members, model=model, backend=backend, device=device)
    check_tokens(fleet[RUN], task, drawn)
    before = [each.read(fleet[RUN]) for each in drawn]
    controllers = {
        each.name: Controller(own, each, run, ground, examples, RUN, seed)
        for own, each in zip(experiments, drawn, strict=True)
        if isinstance(own, Controlled)
    }
    fitted(fleet, list(controllers.values()))
    places += [spot for controller in controllers.values() for spot in controller.places]
    without = fleet[CONTROL] if control else None
    return Once(
        outcomes=_outcomes(drawn, before, fleet[RUN], without, places, ground, controllers),
        places=tuple(places),
        steps=run.steps,
        tokens=len(ground.taken),
        network=fleet[RUN],
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
                value=each.read(network),
                control=None if control is None else each.read(control),
                readings=tuple(controllers[each.name].readings) if each.name in controllers else (),
            )
        )
    return tuple(found)


def once_member(name: str, task: Task, seed: int, settings: dict[str, Any]) -> Member:
    """A member with the settings of a run; all its batches are whole.

    Raises:
        InputError: a setting that a run sets itself, or that no member has.
    """
    for own in ("name", "task", "start", "drop_last", "data_seed", "lora"):
        if own in settings:
            hint = "it is not among the settings of such a run"
            raise InputError(f"`{own}` can't be set here", where=f"task `{task.name}`", hint=hint)
    try:
        return Member(name=name, task=task, seed=seed, drop_last=True, **settings)
    except TypeError as error:
        told = str(error).rpartition(" ")[2].strip("'")
        raise InputError(f"a run has no setting `{told}`", hint="settings are those of `Member`") from error


def learning(run: Run, examples: Inserted, name: str) -> Member:
    """The member that learns from the examples of a run."""
    task = run.task
    splits: dict[str, Any] = {"train": examples}
    own = Task(task.name, splits, loss=task.loss, metric=task.metric, head=task.head, meet=task.meet)
    return run.trained(own, name)


def check_tokens(network: nn.Module, task: Task, drawn: Sequence[Drawn]) -> None:
    """Nothing, if a network knows all tokens of all sequences.

    Raises:
        InputError: it doesn't.
    """
    examples = task.split("train")
    device = next(network.parameters()).device
    batch = {name: column.to(device) for name, column in examples.batch([0]).items()}
    with at_rest(network):
        given = task.outputs(network, batch)
    count = (given if isinstance(given, torch.Tensor) else given["logits"]).shape[-1]
    for each in drawn:
        if each.largest >= count:
            what = f"it has token {each.largest}, and the model knows {count}"
            hint = "make its sequences with the model's own tokenizer"
            raise InputError(what, where=f"experiment `{each.name}`", hint=hint)


def fitted(fleet: Fleet, callbacks: Sequence[Any] = ()) -> Fleet:
    """The fleet, trained.

    Raises:
        InputError: a member failed.
    """
    fleet.fit(callbacks=callbacks)
    failed = [name for name, status in fleet.status.items() if status == "failed"]
    if failed:
        hint = "lower its learning rate, or give a clip"
        raise InputError(f"training failed: `{failed[0]}` lost its numbers", hint=hint)
    return fleet

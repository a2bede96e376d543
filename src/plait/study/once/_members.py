"""Members of the fleets in which experiments are trained, and what is checked of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from plait.errors import InputError
from plait.fleet import Fleet, Member
from plait.study.once._experiment import Drawn
from plait.study.once._stream import Inserted, Run
from plait.tasks import Task, at_rest


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


def learning(run: Run, examples: Inserted, name: str, digest: str = "") -> Member:
    """The member that learns from the examples of a run.

    Args:
        run: it.
        examples: with what is put in.
        name: of the member.
        digest: of what is put in; it stands in the task's name, so that a save of other data is refused.
    """
    task = run.task
    splits: dict[str, Any] = {"train": examples}
    told = f"{task.name} with experiments {digest}" if digest else task.name
    own = Task(told, splits, loss=task.loss, metric=task.metric, head=task.head, meet=task.meet)
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


def fitted(fleet: Fleet, callbacks: Sequence[Any] = (), *, resume: bool = False) -> Fleet:
    """The fleet, trained.

    Raises:
        InputError: a member failed.
    """
    fleet.fit(callbacks=callbacks, resume=resume)
    failed = [name for name, status in fleet.status.items() if status == "failed"]
    if failed:
        hint = "lower its learning rate, or give a clip"
        raise InputError(f"training failed: `{failed[0]}` lost its numbers", hint=hint)
    return fleet

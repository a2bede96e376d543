"""A few examples through a member's network, before its first step: data, network, head and loss fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from plait.errors import InputError, raise_all
from plait.fleet._check import check_measures
from plait.fleet._member import Member
from plait.fleet._noise import noise_kept
from plait.fleet._tokens import check_tokens
from plait.tasks import (
    Batch,
    Classes,
    CrossEntropy,
    Loss,
    Mixed,
    MixedLoss,
    PackedTokens,
    SquaredError,
    Task,
    at_rest,
    check_labels,
    check_packing,
    known_labels,
    label_problem,
    size_problem,
)

#: Characters of a message of others that are told.
_LONGEST = 300


def try_out(member: Member, task: Task, network: nn.Module) -> Classes:
    """A few examples through the network: data, network, head and loss fit each other.

    Returns:
        what `Trainee.classes` is.

    Raises:
        InputError: they don't; it says what PyTorch said.
    """
    whose = f"member `{member.name}`"
    told = f"{whose}, task `{task.name}`"
    check_measures(task.loss, task.metric, told)
    check_tokens(task, getattr(network, "body", network) if task.head is not None else network, told)
    examples = task.split("train")
    rows = examples.starts if isinstance(examples, Mixed) else list(range(min(2, len(examples))))
    try:
        with at_rest(network), noise_kept():
            batch = examples.batch(rows)
            device = next(network.parameters()).device
            batch = {name: column.to(device) for name, column in batch.items()}
            outputs = task.outputs(network, batch)
            classes = _check_labels(member, task, outputs, batch)
            values, weights = task.loss(outputs, batch)
            if isinstance(task.meet, PackedTokens):
                check_packing(network, (batch["input_ids"][0].tolist() * 4)[:16])
    except InputError as error:
        raise error.located(lambda where: where or told) from error
    except Exception as error:
        raise InputError(
            f"data, network and loss of task `{task.name}` don't fit: {first_line(error)}",
            where=whose,
            hint="try task.outputs(network.eval(), task.split('train').batch([0])) by hand",
        ) from error
    if values.shape != (len(rows),) or weights.shape != values.shape:
        shapes = f"{tuple(values.shape)} values and {tuple(weights.shape)} weights"
        what = f"the loss gave {shapes} for {len(rows)} examples"
        hint = "a loss gives one value and one weight for each example"
        raise InputError(what, where=whose, hint=hint)
    return classes


def _check_labels(member: Member, task: Task, outputs: Any, batch: Batch) -> Classes:
    """Nothing if the network has an output for every label; their number, if labels show in batches alone."""
    where, loss = f"member `{member.name}`, task `{task.name}`", task.loss
    if isinstance(loss, MixedLoss):
        several = outputs if loss.headed else (outputs,) * len(loss.losses)
        mixed = tuple(_classes(own, each) for own, each in zip(loss.losses, several, strict=True))
        check_labels(loss, batch, mixed, f"{where}, split `train`")
        return mixed
    if isinstance(loss, SquaredError) and isinstance(given := getattr(outputs, "logits", outputs), Tensor):
        return _check_sizes(_known(task, loss.label), given, where)
    classes = _classes(loss, outputs)
    if not isinstance(loss, CrossEntropy) or classes is None:
        return None
    labels = _known(task, loss.label)
    problems = [
        label_problem(known, classes, f"{where}, split `{split}`")
        for split, known in labels.items()
        if known is not None
    ]
    raise_all([problem for problem in problems if problem is not None])
    if labels["train"] is not None:
        return None
    check_labels(loss, batch, classes, f"{where}, split `train`")
    return classes


def _known(task: Task, label: str) -> dict[str, Tensor | None]:
    """Split → its labels, where no example has to be made for them."""
    there = [split for split in ("train", "validation") if split in task.splits]
    return {split: known_labels(task.splits[split], label) for split in there}


def _check_sizes(labels: Mapping[str, Tensor | None], outputs: Tensor, where: str) -> None:
    """Nothing if the network gives as many numbers as labels have, in every split."""
    for split, known in labels.items():
        problem = known is not None and size_problem((1, *outputs.shape[1:]), (1, *known.shape[1:]))
        if problem:
            raise problem.located(lambda _, split=split: f"{where}, split `{split}`")


def _classes(loss: Loss, outputs: Any) -> int | None:
    """How many outputs labels have, if they are classes."""
    logits = getattr(outputs, "logits", outputs)
    return logits.shape[-1] if isinstance(loss, CrossEntropy) and isinstance(logits, Tensor) else None


def first_line(error: Exception) -> str:
    """What an error says first, in a length that messages can bear, or its kind."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # an exception of the user's, which fails to say what it is
        lines = []
    said = lines[0] if lines else type(error).__name__
    return said if len(said) <= _LONGEST else said[:_LONGEST].rstrip() + " …"


def told(error: Exception) -> str:
    """An error's kind and what it says first."""
    said, kind = first_line(error), type(error).__name__
    return kind if said == kind else f"{kind}: {said}"

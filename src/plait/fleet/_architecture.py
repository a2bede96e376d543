"""Whether networks can be stacked: they must do the same with tensors of the same names and shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from plait.errors import InputError
from plait.fleet._heads import class_tensors
from plait.fleet._trainee import Trainee
from plait.tasks import TASK

_PLAIN = (bool, int, float, str, type(None), tuple)


def signature(trainee: Trainee) -> tuple[Any, ...]:
    """What members of one stack have in common; equal for those that can be stacked."""
    member, task = trainee.member, trainee.task
    if member.lora is not None:
        own = (task.meet, member.optimizer, member.decay, member.nesterov, shared_columns(trainee))
        return ("adapters", id(trainee.network), *own)
    return (
        _structure(trainee),
        task.loss,
        task.meet,
        task.head is not None,
        member.optimizer,
        member.decay,
        member.accumulate,
        member.optimizer == "sgd" and (member.nesterov, member.momentum > 0),
        trainee.columns,
    )


def check(trainees: Sequence[Trainee]) -> None:
    """Nothing if the members can be stacked.

    Raises:
        InputError: it names two members and what they differ in.
    """
    first = trainees[0]
    for each in trainees:
        if each.member.lora is not None:
            what = f"member `{each.member.name}` has a LoRA adapter, and stacks hold whole networks"
            raise InputError(what, hint='give backend="auto" or backend="adapters"')
    for other in trainees[1:]:
        if signature(other) != signature(first):
            raise InputError(
                f"members `{first.member.name}` and `{other.member.name}` can't share a stack: "
                + _difference(first, other),
                hint='give backend="auto", which stacks those that are alike, or backend="sequential"',
            )
    _check_batch_norm(trainees)


def _structure(trainee: Trainee) -> tuple[Any, ...]:
    """Types and plain settings of all modules, names, shapes and types of all tensors."""
    widths = class_tensors(trainee)
    free = {"head"} if widths else set()
    modules = tuple(
        (name, type_before_parametrizations(module), _settings(module, name, free))
        for name, module in _modules(trainee)
    )
    tensors = tuple(
        (name, tuple(t.shape[1:]) if name in widths else tuple(t.shape), t.dtype, t.requires_grad)
        for name, t in [*trainee.network.named_parameters(), *trainee.network.named_buffers()]
    )
    return modules, tensors


def _modules(trainee: Trainee) -> list[tuple[str, nn.Module]]:
    return list(trainee.network.named_modules())


def _settings(module: nn.Module, name: str, free: set[str]) -> tuple[Any, ...]:
    """A module's numbers, words and switches, but for whether it is training."""
    skipped = {"training"} | ({"out_features"} if name in free else set())
    plain = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, _PLAIN) and key not in skipped and not key.startswith("_")
    }
    config = getattr(module, "config", None)
    if config is not None and hasattr(config, "to_json_string"):
        plain["config"] = config.to_json_string()
    functions = {
        key: getattr(value, "__qualname__", repr(value))
        for key, value in vars(module).items()
        if callable(value) and not isinstance(value, nn.Module)
    }
    return tuple(sorted((plain | functions).items(), key=lambda item: item[0]))


def shared_columns(trainee: Trainee) -> tuple[Any, ...]:
    """Columns that all members with adapters on one base must have; which task it is, one alone need not."""
    return tuple(column for column in trainee.columns if column[0] != TASK)


def _difference(first: Trainee, other: Trainee) -> str:
    """The first thing that two members differ in, in words."""
    (modules, tensors), (modules2, tensors2) = _structure(first), _structure(other)
    for one, two in zip(tensors, tensors2, strict=False):
        if one != two:
            return f"tensor `{one[0]}` {one[1:3]} against `{two[0]}` {two[1:3]}"
    if len(tensors) != len(tensors2):
        return f"{len(tensors)} tensors against {len(tensors2)}"
    for one, two in zip(modules, modules2, strict=False):
        if one != two:
            return f"module `{one[0] or type(first.network).__name__}` is {one[1:]} against {two[1:]}"
    names = (
        "network",
        "loss",
        "meet",
        "head",
        "optimizer",
        "decay",
        "accumulate",
        "momentum",
        "columns of a batch",
    )
    for name, one, two in zip(names, signature(first), signature(other), strict=True):
        if one != two:
            return f"{name}: {one} against {two}"
    return "they differ"


def normalising(network: nn.Module) -> dict[str, nn.Module]:
    """Modules that normalise over a batch as they are trained, with what fills it up; by name."""
    kind = nn.modules.batchnorm._BatchNorm
    return {name: module for name, module in network.named_modules() if isinstance(module, kind)}


def _check_batch_norm(trainees: Sequence[Trainee]) -> None:
    """Normalisation over a batch counts the rows that fill it up, so no batch may need any."""
    name = next(iter(normalising(trainees[0].network)), None)
    if name is None:
        return
    sizes = {min(t.member.batch_size, len(t.examples)) for t in trainees}
    uneven = [t for t in trainees if len(t.examples) % t.member.batch_size and not t.member.drop_last]
    if len(sizes) > 1 or (uneven and len(trainees) > 1):
        raise InputError(
            f"`{name}` normalises over a batch, and the members' batches are of unequal size",
            hint='give all one batch_size and drop_last=True, or backend="sequential"',
        )

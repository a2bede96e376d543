"""Whether networks can be stacked: they must do the same with tensors of the same names and shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from plait.errors import InputError
from plait.fleet._alike import Describer, attributes
from plait.fleet._heads import class_tensors
from plait.fleet._refused import check_alone, hooks
from plait.fleet._trainee import Trainee
from plait.tasks import TASK, Headed


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
        check_alone(each, _structure(each).elsewhere)
    own = signature(first)
    for other in trainees[1:]:
        if signature(other) != own:
            raise InputError(
                f"members `{first.member.name}` and `{other.member.name}` can't share a stack: "
                + _difference(first, other),
                hint='give backend="auto", which stacks those that are alike, or backend="sequential"',
            )
    _check_batch_norm(trainees)


class _Structure(NamedTuple):
    """What a network does, but for the numbers in its tensors.

    Args:
        modules: name, type and settings of each.
        tensors: name, shape, type and hooks of each.
        elsewhere: tensors of its own that attributes of modules hold once more: module, attribute, tensor.
    """

    modules: tuple[tuple[str, type, dict[str, Any]], ...]
    tensors: tuple[tuple[Any, ...], ...]
    elsewhere: list[tuple[str, str, str]]


def _structure(trainee: Trainee) -> _Structure:
    """A member's, found once."""
    if trainee.structure is None:
        trainee.structure = _found(trainee)
    return trainee.structure


def _found(trainee: Trainee) -> _Structure:
    widths, describe = class_tensors(trainee), Describer(trainee.network)
    modules, elsewhere = [], []
    for name, module in trainee.network.named_modules():
        settings = {}
        for key, value in attributes(module).items():
            of_head = (name, key) == ("head", "out_features") and widths
            of_task = isinstance(module, Headed) and key == "_task"  # a name, which computes nothing
            if not (of_head or of_task):
                settings[key] = describe(value)
            elsewhere += [(name, key, tensor) for tensor in describe.taken()]
        modules.append((name, type_before_parametrizations(module), settings))
    tensors = tuple(
        (
            name,
            tuple(t.shape[1:]) if name in widths else tuple(t.shape),
            t.dtype,
            t.requires_grad,
            tuple(map(describe, hooks(t))),
        )
        for name, t in [*trainee.network.named_parameters(), *trainee.network.named_buffers()]
    )
    return _Structure(tuple(modules), tensors, elsewhere)


def shared_columns(trainee: Trainee) -> tuple[Any, ...]:
    """Columns that all members with adapters on one base must have; which task it is, one alone need not."""
    return tuple(column for column in trainee.columns if column[0] != TASK)


def _difference(first: Trainee, other: Trainee) -> str:
    """The first thing that two members differ in, in words."""
    (modules, tensors, _), (modules2, tensors2, _) = _structure(first), _structure(other)
    for one, two in zip(tensors, tensors2, strict=False):
        if one != two:
            told = f"tensor `{one[0]}` {one[1:3]} against `{two[0]}` {two[1:3]}"
            return told + _no_classes(first if first.fills is False else other, one[0])
    if len(tensors) != len(tensors2):
        return f"{len(tensors)} tensors against {len(tensors2)}"
    for one, two in zip(modules, modules2, strict=False):
        if one != two:
            return f"module `{one[0] or type(first.network).__name__}` " + _unlike(one, two)
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


def _no_classes(trainee: Trainee, tensor: str) -> str:
    """Why a head that says so can't be filled up to as many classes as another."""
    if trainee.fills is not False or not tensor.startswith("head."):
        return ""
    kind = type(trainee.task.head).__name__
    return f"; what `head` ({kind}) gives for a class depends on what other classes, or how many, there are"


def _unlike(one: tuple[Any, ...], two: tuple[Any, ...]) -> str:
    """What two modules differ in."""
    (name, kind, held), (name2, kind2, held2) = one, two
    if (name, kind) != (name2, kind2):
        return f"is a {kind.__name__}, and `{name2}` a {kind2.__name__}"
    key = next(key for key in {**held, **held2} if held.get(key) != held2.get(key))
    said = [_said(each[key]) if key in each else "not there" for each in (held, held2)]
    told = " against ".join(said) if said[0] != said[1] else f"{said[0]} in both, which hold other things"
    return f"differs in its attribute `{key}`: {told}"


def _said(found: Any) -> str:
    """A plain value, or of what kind another is."""
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], str):
        return found[1]
    kind = found[0] if isinstance(found, tuple) else str(found).strip("<>").split()[0]
    return kind.removeprefix("builtins.")


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

"""What the adapters' backend refuses, in one message each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from plait.errors import InputError, raise_all
from plait.fleet._architecture import shared_columns
from plait.fleet._calls import Calls
from plait.fleet._lora_config import check_config
from plait.fleet._trainee import Trainee

_SEQUENTIAL = "the sequential backend trains them one by one"


def check(trainees: Sequence[Trainee]) -> None:
    """Refuse members that cannot share one pass of one base.

    Raises:
        InputError: names the members, or the module.
    """
    for trainee in trainees:
        check_config(trainee.member)
    first = trainees[0]
    problems = []
    for other in trainees[1:]:
        where = f"members `{first.member.name}` and `{other.member.name}`"
        if other.network is not first.network:
            hint = (
                "adapters share one base in memory: give them the same `start`, or no start and the fleet's"
            )
            problems.append(InputError("they start from different bases", where=where, hint=hint))
        if other.task.meet != first.task.meet:
            problems.append(
                InputError("their tasks call the base in different ways", where=where, hint=_SEQUENTIAL)
            )
        one, two = shared_columns(first), shared_columns(other)
        if one != two:
            what = f"batches hold {_told(one)} and {_told(two)}"
            hint = f"a shared batch needs the same columns of all; {_SEQUENTIAL}"
            problems.append(InputError(what, where=where, hint=hint))
        for name in ("optimizer", "decay", "nesterov"):
            if getattr(other.member, name) != getattr(first.member, name):
                told = f"`{name}` is `{getattr(first.member, name)}` and `{getattr(other.member, name)}`"
                problems.append(InputError(told, where=where, hint=_SEQUENTIAL))
    raise_all(problems + _norms(first.network))


def _told(columns: Sequence[tuple[str, torch.dtype, int]]) -> str:
    return ", ".join(f"`{name}` ({str(dtype).removeprefix('torch.')})" for name, dtype, _ in columns)


def _norms(base: nn.Module) -> list[InputError]:
    found = [
        (name, module)
        for name, module in base.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    return [
        InputError(
            f"`{name}` is a {type(module).__name__}, whose statistics would be of all members' examples",
            where="adapters",
            hint=f"use a base with LayerNorm or GroupNorm; {_SEQUENTIAL}",
        )
        for name, module in found[:1]
    ]


def check_calls(calls: Calls) -> None:
    """Refuse a base whose random numbers are not all dropout's.

    Raises:
        InputError: it draws others.
    """
    if calls.draws:
        raise InputError(
            "the base draws random numbers beside dropout (layer drop, stochastic depth, noise)",
            where="adapters",
            hint=f"switch that off in its config; {_SEQUENTIAL}",
        )


def check_apart(gradients: Sequence[torch.Tensor], seen: Sequence[int]) -> None:
    """Refuse a base that mixes examples, so that one member's loss depends on another's.

    Args:
        gradients: `(members, …)`, of the loss of some members.
        seen: those members.

    Raises:
        InputError: another member has a gradient.
    """
    others = [member for member in range(len(gradients[0])) if member not in seen]
    if any(bool(g[others].ne(0).any()) for g in gradients):
        raise InputError(
            "the base mixes the examples of a batch, so that members would see each other's",
            where="adapters",
            hint=f"its first dimension must run over examples in every layer; {_SEQUENTIAL}",
        )

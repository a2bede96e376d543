"""From members to trainees: tasks found, networks made, everything checked before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from plait.checkpoint import load_into, open_model
from plait.errors import InputError, nearest
from plait.fleet._adapter import headed
from plait.fleet._member import After, Member
from plait.fleet._noise import noise_kept, seed_noise
from plait.fleet._trainee import State, Trainee
from plait.fleet._trial import told, try_out
from plait.tasks import Task, copied, mixture


def find_task(member: Member, tasks: Mapping[str, Task], mixtures: dict[Any, Task]) -> Task:
    """A member's task.

    Args:
        member: its settings.
        tasks: the fleet's, by name.
        mixtures: those made before, so that members with one mixture share it; a new one is put there.

    Raises:
        InputError: it has none, or names one that is not there, or tasks that can't be mixed.
    """
    if isinstance(member.task, Task):
        return member.task
    if isinstance(member.task, Sequence | Mapping) and not isinstance(member.task, str):
        parts = [each if isinstance(each, Task) else _named(member, each, tasks) for each in member.task]
        weights = list(member.task.values()) if isinstance(member.task, Mapping) else None
        key = (*map(id, parts), *map(repr, weights or []))
        if key not in mixtures:
            with _located(member):
                mixtures[key] = mixture(parts, weights)
        return mixtures[key]
    if member.task is None:
        if len(tasks) == 1:
            return next(iter(tasks.values()))
        hint = "say task= of each member" + (": " + ", ".join(f"`{t}`" for t in tasks) if tasks else "")
        raise InputError("it has no task", where=_where(member), hint=hint)
    return _named(member, member.task, tasks)


def _named(member: Member, name: str, tasks: Mapping[str, Task]) -> Task:
    if name not in tasks:
        raise InputError(f"there is no task `{name}`", where=_where(member), hint=nearest(name, tasks))
    return tasks[name]


def build(
    member: Member,
    task: Task,
    model: nn.Module | Callable[[], nn.Module] | None,
    start: nn.Module | None = None,
) -> Trainee:
    """A member ready to train.

    Args:
        member: its settings.
        task: its task.
        model: the fleet's.
        start: the network of the member that this one starts after.

    Raises:
        InputError: there is nothing to start from, or head and data disagree.
    """
    steps = member.length(len(task.split("train")))
    network = (
        _copied(member, start) if start is not None else task.with_body(_body(member, model), copy_body=False)
    )
    if not any(p.requires_grad for p in network.parameters()):
        raise InputError("no parameter is trained", where=_where(member), hint="set requires_grad of some")
    _check_validation(member, task)
    _check_sparse(member, network)
    _check_scripted(member, network)
    given = start is None and _is_given(member, model)
    network.train()  # once: what a callback puts at rest later stays so
    trainee = Trainee(member, task, network, steps, try_out(member, task, network), given)
    return trainee.looked_at()


def build_adapter(member: Member, task: Task, base: nn.Module) -> Trainee:
    """A member with a `lora` over a base, ready to train; the base is not copied.

    Raises:
        InputError: a target matches no layer, or base, head and data disagree.
    """
    trainee = Trainee(member, task, base, member.length(len(task.split("train"))), given=True)
    trainee.initial()
    _check_validation(member, task)
    trainee.classes = try_out(member, task, headed(base, task, base))
    return trainee.looked_at()


def started(member: Member, own: State, other: State) -> State:
    """An adapter's state that starts with another's weights.

    Raises:
        InputError: the two adapters are not of one shape.
    """
    shapes = {name: tuple(t.shape) for name, t in own.parameters.items()}
    for name, shape in shapes.items():
        found = other.parameters.get(name)
        if found is None or tuple(found.shape) != shape:
            told = "is not there" if found is None else f"has shape {tuple(found.shape)}"
            what = f"`{name}` has shape {shape}, and {told} in the member that it starts after"
            raise InputError(what, where=_where(member), hint="give both one LoraConfig")
    return State({name: other.parameters[name].clone() for name in shapes}, {})


def base_of(member: Member, model: nn.Module | Callable[[], nn.Module] | None) -> nn.Module:
    """The base that a member's adapter stands on: a module as it is, never a copy."""
    source = model if member.start is None else member.start
    return source if isinstance(source, nn.Module) else _body(member, model)


def _is_given(member: Member, model: nn.Module | Callable[[], nn.Module] | None) -> bool:
    """Whether a member's first weights are there, as a module or a checkpoint."""
    return isinstance(model if member.start is None else member.start, nn.Module | str | Path)


def _body(member: Member, model: nn.Module | Callable[[], nn.Module] | None) -> nn.Module:
    start = member.start
    if isinstance(start, str | Path):
        return _loaded(member, _made(member, model), str(start))
    return _made(member, model if start is None or isinstance(start, After) else start)


def _made(member: Member, source: nn.Module | Callable[[], nn.Module] | None) -> nn.Module:
    """A copy of a module, or a new one under the member's seed."""
    if isinstance(source, nn.Module):
        return _copied(member, source)
    if source is None:
        raise InputError(
            "there is nothing to start from", where=_where(member), hint="give start= or the fleet's model="
        )
    with noise_kept():
        seed_noise(member.seed)
        try:
            made = source()
        except InputError:
            raise
        except Exception as error:
            what = f"its start could not be made: {told(error)}"
            raise InputError(what, where=_where(member), hint="a start is called with no argument") from error
    if not isinstance(made, nn.Module):
        raise InputError(f"its start made a {type(made).__name__}, no module", where=_where(member))
    return made


def _copied(member: Member, source: nn.Module) -> nn.Module:
    with _located(member):
        return copied(source)


def _loaded(member: Member, body: nn.Module, path: str) -> nn.Module:
    with _located(member):
        return load_into(body, open_model(path))


@contextmanager
def _located(member: Member) -> Iterator[None]:
    """Errors that also say whose."""
    try:
        yield
    except InputError as error:
        own = _where(member)
        raise error.located(lambda where: f"{own}: {where}" if where else own) from error


def _check_sparse(member: Member, network: nn.Module) -> None:
    """Nothing if every gradient is a tensor of all its numbers, as optimizers and clipping take them."""
    for name, module in network.named_modules():
        if getattr(module, "sparse", False) is True and any(p.requires_grad for p in module.parameters()):
            what = f"module `{name}` ({type(module).__name__}) has sparse gradients, which fleets don't train"
            raise InputError(what, where=_where(member), hint="make it with sparse=False, or freeze it")


def _check_scripted(member: Member, network: nn.Module) -> None:
    """Nothing if no part is TorchScript's: copies of such have no weights that an optimizer takes."""
    for name, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            part = f"module `{name}`" if name else "its network"
            what = f"{part} is scripted or traced (TorchScript), which fleets don't train"
            raise InputError(
                what, where=_where(member), hint="give the plain module, and script what it has become"
            )


def _check_validation(member: Member, task: Task) -> None:
    """Nothing if the task has what `patience` and `keep` need."""
    if (member.patience is not None or member.keep == "best") and "validation" not in task.splits:
        what = f"`patience` and `keep` need validations, and the task `{task.name}` has no split `validation`"
        raise InputError(what, where=_where(member), hint="give the task one, or leave them out")


def _where(member: Member) -> str:
    return f"member `{member.name}`"

"""From members to trainees: tasks found, networks made, everything checked before the first step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from plait.checkpoint import load_into, open_model
from plait.errors import InputError, nearest, raise_all
from plait.fleet._adapter import headed
from plait.fleet._member import After, Member
from plait.fleet._trainee import State, Trainee
from plait.tasks import (
    Batch,
    CrossEntropy,
    PackedTokens,
    Suite,
    Task,
    check_labels,
    check_packing,
    known_labels,
    label_problem,
)


def named_tasks(tasks: Suite | Sequence[Task] | Mapping[str, Task] | Task | None) -> dict[str, Task]:
    """Tasks by name."""
    if tasks is None:
        return {}
    if isinstance(tasks, Task):
        return {tasks.name: tasks}
    if isinstance(tasks, Mapping):
        return dict(tasks)
    return {task.name: task for task in (tasks.tasks if isinstance(tasks, Suite) else tasks)}


def check_numbers(*, save_every: object, log_every: object, out: object) -> None:
    """Nothing if a fleet's own settings make sense.

    Raises:
        InputError: a number is none, or the folder is a file.
    """
    for name, value, least in (("save_every", save_every, 0), ("log_every", log_every, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"`{name}` is {value!r}", hint=f"give a whole number from {least} on")
    if isinstance(out, str | Path) and Path(out).exists() and not Path(out).is_dir():
        raise InputError("the fleet's folder is a file", where=str(out), hint="give a folder")


def check_names(members: Sequence[Member], known: Sequence[str] = ()) -> None:
    """Nothing if every member has a name of its own.

    Raises:
        InputError: two have one name, or one starts after a member that is not there.
    """
    names = [member.name for member in members]
    problems = [
        InputError(f"two members are called `{name}`", hint="names are what members are found by")
        for name in dict.fromkeys(names)
        if names.count(name) + (name in known) > 1
    ]
    for member in members:
        if not member.name:
            problems.append(InputError("a member has no name", hint="names are what members are found by"))
        if isinstance(member.start, After) and member.start.member not in [*names, *known]:
            hint = nearest(member.start.member, [*names, *known])
            problems.append(
                InputError(f"it starts after `{member.start.member}`", where=_where(member), hint=hint)
            )
    problems += _circles(members)
    raise_all(problems)


def _circles(members: Sequence[Member]) -> list[InputError]:
    after = {m.name: m.start.member for m in members if isinstance(m.start, After)}
    for name in after:
        place, seen = name, {name}
        while place in after:
            place = after[place]
            if place in seen:
                return [InputError(f"member `{name}` waits for itself", hint="let one of the circle start")]
            seen.add(place)
    return []


def find_task(member: Member, tasks: Mapping[str, Task]) -> Task:
    """A member's task.

    Raises:
        InputError: it has none, or names one that is not there.
    """
    if isinstance(member.task, Task):
        return member.task
    if member.task is None:
        if len(tasks) == 1:
            return next(iter(tasks.values()))
        hint = "say task= of each member" + (": " + ", ".join(f"`{t}`" for t in tasks) if tasks else "")
        raise InputError("it has no task", where=_where(member), hint=hint)
    if member.task not in tasks:
        raise InputError(
            f"there is no task `{member.task}`", where=_where(member), hint=nearest(member.task, tasks)
        )
    return tasks[member.task]


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
        copy.deepcopy(start) if start is not None else task.with_body(_body(member, model), copy_body=False)
    )
    if not any(p.requires_grad for p in network.parameters()):
        raise InputError("no parameter is trained", where=_where(member), hint="set requires_grad of some")
    _check_validation(member, task)
    return Trainee(member, task, network, steps, _try(member, task, network))


def build_adapter(member: Member, task: Task, base: nn.Module) -> Trainee:
    """A member with a `lora` over a base, ready to train; the base is not copied.

    Raises:
        InputError: a target matches no layer, or base, head and data disagree.
    """
    trainee = Trainee(member, task, base, member.length(len(task.split("train"))))
    trainee.initial()
    _check_validation(member, task)
    trainee.classes = _try(member, task, headed(base, task, base))
    return trainee


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


def _body(member: Member, model: nn.Module | Callable[[], nn.Module] | None) -> nn.Module:
    start = member.start
    if isinstance(start, str | Path):
        return _loaded(member, _made(member, model), str(start))
    return _made(member, model if start is None or isinstance(start, After) else start)


def _made(member: Member, source: nn.Module | Callable[[], nn.Module] | None) -> nn.Module:
    """A copy of a module, or a new one under the member's seed."""
    if isinstance(source, nn.Module):
        return copy.deepcopy(source)
    if source is None:
        raise InputError(
            "there is nothing to start from", where=_where(member), hint="give start= or the fleet's model="
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(member.seed)
        made = source()
    if not isinstance(made, nn.Module):
        raise InputError(f"its start made a {type(made).__name__}, no module", where=_where(member))
    return made


def _loaded(member: Member, body: nn.Module, path: str) -> nn.Module:
    try:
        return load_into(body, open_model(path))
    except InputError as error:
        own = _where(member)
        raise error.located(lambda where: f"{own}: {where}" if where else own) from error


def _try(member: Member, task: Task, network: nn.Module) -> int | None:
    """Two examples through the network: data, network, head and loss fit each other.

    Returns:
        what `Trainee.classes` is.

    Raises:
        InputError: they don't; it says what PyTorch said.
    """
    examples = task.split("train")
    rows = list(range(min(2, len(examples))))
    was = network.training
    network.eval()
    try:
        with torch.no_grad():
            batch = examples.batch(rows)
            device = next(network.parameters()).device
            batch = {name: column.to(device) for name, column in batch.items()}
            outputs = task.outputs(network, batch)
            classes = _check_labels(member, task, outputs, batch)
            values, weights = task.loss(outputs, batch)
            if isinstance(task.meet, PackedTokens):
                check_packing(network, (batch["input_ids"][0].tolist() * 4)[:16])
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"data, network and loss of task `{task.name}` don't fit: {_first_line(error)}",
            where=_where(member),
            hint="try task.outputs(network, task.split('train').batch([0])) by hand",
        ) from error
    finally:
        network.train(was)
    if values.shape != (len(rows),) or weights.shape != values.shape:
        shapes = f"{tuple(values.shape)} values and {tuple(weights.shape)} weights"
        what = f"the loss gave {shapes} for {len(rows)} examples"
        raise InputError(
            what, where=_where(member), hint="a loss gives one value and one weight for each example"
        )
    return classes


def _check_validation(member: Member, task: Task) -> None:
    """Nothing if the task has what `patience` and `keep` need."""
    if (member.patience is not None or member.keep == "best") and "validation" not in task.splits:
        what = f"`patience` and `keep` need validations, and the task `{task.name}` has no split `validation`"
        raise InputError(what, where=_where(member), hint="give the task one, or leave them out")


def _check_labels(member: Member, task: Task, outputs: Any, batch: Batch) -> int | None:
    """Nothing if the network has an output for every label; their number, if labels show in batches alone."""
    logits = getattr(outputs, "logits", outputs)
    if not isinstance(task.loss, CrossEntropy) or not isinstance(logits, Tensor):
        return None
    classes, where = logits.shape[-1], f"{_where(member)}, task `{task.name}`"
    labels = {
        split: known_labels(task.splits[split], task.loss.label)
        for split in ("train", "validation")
        if split in task.splits
    }
    problems = [
        label_problem(known, classes, f"{where}, split `{split}`")
        for split, known in labels.items()
        if known is not None
    ]
    raise_all([problem for problem in problems if problem is not None])
    if labels["train"] is not None:
        return None
    check_labels(task.loss, batch, classes, f"{where}, split `train`")
    return classes


def _first_line(error: Exception) -> str:
    lines: Any = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]


def _where(member: Member) -> str:
    return f"member `{member.name}`"

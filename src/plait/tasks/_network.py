"""What is scored: a module as it is, or a checkpoint in a module of its suite's base, with a task's head."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from plait.checkpoint import HEAD_FILE, Checkpoint, LazyTensor, load_into, open_checkpoint, open_model
from plait.errors import InputError
from plait.tasks._brought import is_fleet
from plait.tasks._joint import Heads
from plait.tasks._saved import head_folders
from plait.tasks._task import Headed, Task

#: One model: a module, a checkpoint, a state dict, or the path or hub id of a checkpoint.
Model = Any


def named_models(models: Any) -> dict[str, nn.Module | Checkpoint]:
    """Names and models of what a user gives: one, several in a list or by name, or a fleet.

    Checkpoints are opened, so that what is not there is said before anything is loaded.

    Raises:
        InputError: there is none, or one can't be opened.
    """
    if is_fleet(models):
        found = {str(name): models[name] for name in models}
    elif isinstance(models, Mapping) and not _is_state(models):
        found = {str(name): model for name, model in models.items()}
    else:
        several = isinstance(models, Sequence) and not isinstance(models, str)
        found = _with_names(list(models) if several else [models])
    if not found:
        raise InputError("there is no model to evaluate", hint="give a module, a checkpoint or a path")
    return {name: _opened(model) for name, model in found.items()}


def _opened(model: Model) -> nn.Module | Checkpoint:
    if isinstance(model, nn.Module):
        return model
    if isinstance(model, str | os.PathLike | Mapping):
        return open_model(model)
    raise InputError(
        f"a {type(model).__name__} can't be evaluated",
        hint="give a torch module, a checkpoint, or the path or hub id of one"
        + ("; for a model with `predict`, use its own `score`" if hasattr(model, "predict") else ""),
    )


def _is_state(models: Mapping[Any, Any]) -> bool:
    """Whether a mapping is one model: a checkpoint, or a state dict."""
    values = models.values()
    return isinstance(models, Checkpoint) or (
        bool(models) and all(isinstance(value, torch.Tensor | LazyTensor) for value in values)
    )


def _with_names(models: Sequence[Model]) -> dict[str, Model]:
    """Models by their references or kinds; those of one name are numbered."""
    names = [_name(model) for model in models]
    found: dict[str, Model] = {}
    for place, (name, model) in enumerate(zip(names, models, strict=True)):
        number = f" {names[: place + 1].count(name)}" if names.count(name) > 1 else ""
        found[name + number] = model
    return found


def _name(model: Model) -> str:
    if isinstance(model, str | os.PathLike):
        return os.fspath(model)
    if isinstance(model, Checkpoint):
        return model.reference
    return "state dict" if isinstance(model, Mapping) else type(model).__name__


def network(
    model: nn.Module | Checkpoint,
    base: Callable[[], nn.Module] | None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """A module to score: the user's own, never changed, or a checkpoint in a base's module.

    Args:
        model: as `named_models` gives it.
        base: makes the module that a checkpoint fills.
        device: where to compute; where the module is, if None.
        dtype: in which type to compute; the module's own if None.

    Raises:
        InputError: there is no base for a checkpoint, or they are of other architectures.
    """
    if isinstance(model, nn.Module):
        return _placed(model, device, dtype)
    if base is None:
        raise InputError(
            "a task alone has no base that a checkpoint could fill",
            where=model.reference,
            hint="give a suite, or a module with the checkpoint's weights",
        )
    return load_into(base(), model).to(device=device, dtype=dtype)


def _placed(module: nn.Module, device: str | torch.device | None, dtype: torch.dtype | None) -> nn.Module:
    held = [*module.parameters(), *module.buffers()]
    moved = device is not None and any(_elsewhere(each.device, torch.device(device)) for each in held)
    cast = dtype is not None and any(each.is_floating_point() and each.dtype != dtype for each in held)
    return copy.deepcopy(module).to(device=device, dtype=dtype) if moved or cast else module


def _elsewhere(here: torch.device, there: torch.device) -> bool:
    return here.type != there.type or (there.index is not None and here.index != there.index)


def untrained(task: Task, head: Any) -> bool:
    """Whether a task is scored with a head of its own that is all zeros, as it is before training."""
    held = [] if head is not None or task.head is None else list(task.head.parameters())
    return bool(held) and not any(p.detach().any() for p in held)


def with_head(model: nn.Module, task: Task, head: Any, *, own: bool, where: str) -> nn.Module:
    """A model as it meets a task: a body with a head, or the model itself if the task needs no head.

    Args:
        model: a body, or a body with a head.
        task: whose head it is.
        head: a module, a body with its head, or a folder with `head.safetensors`; the task's own if None.
        own: whether the head that a model brings is the task's.
        where: the model's name, for messages.

    Raises:
        InputError: the model brings a head that is not the task's, and there is no other; the head's file is
            not there or of another shape; the task has no head.
    """
    if isinstance(model, Headed):
        if head is None and isinstance(model.head, Heads) and task.name in model.head.names:
            mine = model.head.of(task.name)
            return model.body if task.head is None else Headed(model.body, mine, task.meet)
        if head is None and own:
            return model
        if head is None and task.head is not None:
            hint = "call each model like the task whose head it brings, or give heads with `heads`"
            what = f"it brings a head that is not that of task `{task.name}`"
            raise InputError(what, where=where, hint=hint)
        model = model.body
    if task.head is None:
        if head is not None:
            raise InputError("a head is given for a task that has none", where=f"task `{task.name}`")
        return model
    like = next((p for p in model.parameters() if p.is_floating_point()), None)
    head = head.head if isinstance(head, Headed) else head
    if isinstance(head, Heads) and task.name in head.names:
        head = head.of(task.name)
    chosen = copy.deepcopy(head if isinstance(head, nn.Module) else task.head)
    if head is not None and not isinstance(head, nn.Module):
        chosen = load_into(chosen, open_checkpoint(_head_file(head, task)))
    if like is not None:
        chosen = chosen.to(device=like.device, dtype=like.dtype)
    return Headed(model, chosen, task.meet)


def _head_file(head: Any, task: Task) -> Path:
    """The file of a head: itself, `FOLDER/head.safetensors` or `FOLDER/TASK/head.safetensors`."""
    if not isinstance(head, str | os.PathLike):
        raise InputError(
            f"a {type(head).__name__} is no head",
            where=f"task `{task.name}`",
            hint=f"give a module or a folder with {HEAD_FILE}",
        )
    path = Path(head)
    tried = (
        [path] if path.is_file() else [each / HEAD_FILE for each in (path, *head_folders(path, task.name))]
    )
    found = next((each for each in tried if each.is_file()), None)
    if found is None:
        told = " nor ".join(f"`{each}`" for each in tried)
        raise InputError(f"there is no head: neither {told} is a file", where=f"task `{task.name}`")
    return found


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every part's mode is as before afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode

"""What results depend on, as plain values: networks with their code, and the examples of tasks."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from plait.checkpoint import content_hash, open_model
from plait.fleet._identity import identity
from plait.study._code import code_of
from plait.study._held import OF_FILES
from plait.study._named import made_of
from plait.study._scripted import outermost
from plait.tasks import Columns, Examples, Items, Subset, Task, digest, in_memory, table_of

#: What every module has, besides what makes it this one.
_EVERY = frozenset(vars(nn.Module()))
#: Types of attributes that are told beside the code, as they are.
_PLAIN = (bool, int, float, str, type(None))
#: Examples that are made twice, to see whether they are the same.
_FEW = 16


def of_network(network: nn.Module) -> dict[str, Any]:
    """A network's weights, its structure, and the code that computes with them."""
    modules = list(network.modules())
    held = {name: dict(_held(module)) for name, module in network.named_modules()}
    plain = {
        name: {key: identity(value) for key, value in own.items() if type(value) in _PLAIN}
        for name, own in held.items()
    }
    others = [
        [name, *item] for name, own in held.items() for item in own.items() if type(item[1]) not in _PLAIN
    ]
    return {
        "weights": of_weights(network),
        "structure": re.sub(r" at 0x[0-9a-f]+", "", repr(network)),
        "code": code_of([*map(type, modules), *_hooks(modules), *others, *outermost(network)]),
        "attributes": {name: own for name, own in plain.items() if own},
    }


def of_weights(network: nn.Module) -> str:
    """A digest of weights and buffers."""
    state = network.state_dict()
    return content_hash(open_model(state)) if state else ""


def _hooks(modules: Iterable[nn.Module]) -> list[Any]:
    """What is called before and after modules, in its order."""
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    return [hook for module in modules for kind in kinds for hook in getattr(module, kind).values()]


def _held(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """What a module holds besides weights, buffers and modules: an epsilon, a function, a configuration."""
    if isinstance(module, torch.jit.ScriptModule) or made_of(module) is not None:
        return  # told whole, or a wrapper of one of its modules
    for name, value in sorted(vars(module).items()):
        if name not in _EVERY and name not in OF_FILES and not isinstance(value, nn.Module):
            yield name, value


def of_task(task: Task) -> dict[str, Any]:
    """A task's data, loss, metric, head, and how it meets a body."""
    splits = {name: of_examples(each) for name, each in task.splits.items()}
    head = None if task.head is None else f"{task.head} {of_weights(task.head)}"
    kinds = {"loss": _of_kind(task.loss), "metric": _of_kind(task.metric), "meet": _of_kind(task.meet)}
    return {"splits": splits, "head": head, **kinds}


def of_part(task: Mapping[str, Any], splits: Collection[str]) -> dict[str, Any]:
    """Of a task's facts, those of whoever sees no more of its examples than some splits.

    The metric is among them where other examples are seen than those for training: to measure them.
    """
    own = {name: each for name, each in task["splits"].items() if name in splits}
    measured = bool(set(splits) - {"train"})
    return {name: fact for name, fact in task.items() if name != "metric" or measured} | {"splits": own}


def _of_kind(value: Any) -> str:
    """A loss, a metric, or how tasks meet bodies, with its code where that is a user's own."""
    return f"{re.sub(r' at 0x[0-9a-f]+', '', repr(value))} {identity(code_of([value]))}"


def of_examples(examples: Examples) -> str:
    """A digest of what examples hold or are made from; if they are others each time, of what is known."""
    if isinstance(examples, Items) and examples.origin is not None:
        known = digest(Columns(examples.columns)) if examples.columns else ""
        return f"{len(examples)} {examples.origin} {known} {identity(examples.source)}"
    if in_memory(examples) or _same(examples):
        return digest(examples)
    whole, rows = table_of(examples)
    known = (whole.columns, whole.source) if isinstance(whole, Items) else None
    return f"{len(examples)} {identity([rows, known])}"


def _same(examples: Examples) -> bool:
    """Whether examples that are made when they are asked for are the same each time."""
    few = Subset(examples, np.arange(min(_FEW, len(examples))))
    return digest(few) == digest(few)

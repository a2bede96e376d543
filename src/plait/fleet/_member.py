"""A member of a fleet: a name, where it starts, what it learns from, how, and its seed."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from torch import nn

from plait.errors import InputError, nearest, noted, raise_all
from plait.tasks import Task

Schedule = Callable[[int, int], float]


@dataclass(frozen=True)
class After:
    """Starts from what another member has become, once that is finished."""

    member: str


#: A module (copied), something that makes one (called under the member's seed), a checkpoint for the fleet's
#: own model, or another member.
Start = nn.Module | Callable[[], nn.Module] | str | Path | After


@dataclass(frozen=True, kw_only=True)
class Member:
    """One of the models that a fleet trains.

    Args:
        name: its own in the fleet.
        task: what it learns; a task, or the name of one of the fleet's. Or a mixture: several of them, or the
            fleet's tasks' names with the share that each has of the examples.
        start: where its weights come from; the fleet's `model` if None.
        optimizer: `adamw` (Loshchilov & Hutter, arXiv:1711.05101) or `sgd`; both as in PyTorch.
        lr, weight_decay, betas, eps, momentum, nesterov: as in PyTorch.
        decay: which parameters decay: `all`, or `matrices` (two dimensions and more) as with transformers.
        schedule: `constant`, `linear` or `cosine` (to 0), or a function of (step, steps) that gives a factor.
        warmup: steps over which the learning rate rises from 0; a share of all steps below 1.
        clip: largest norm of the gradient over all of the member's parameters; None for no limit.
        batch_size: examples in a micro-batch.
        accumulate: micro-batches in a step.
        steps, epochs: how long; one of the two.
        drop_last: whether an epoch leaves out its last, smaller batch.
        seed: of its data's order, its dropout and its start.
        data_seed: of its data's order, and of what examples made on demand draw (augmentation); members with
            one task, batch size and data seed share batches.
        evaluate_every: steps between validations; 0 for none but the last.
        patience: how many validations without a better one stop it; None for no such stop.
        keep: which weights it ends with: the `last`, or those of its `best` validation.
        lora: for the adapters' backend, PEFT's `LoraConfig` (rank, alpha, targets, dropout).
    """

    name: str
    task: Task | str | Sequence[Task | str] | Mapping[str, float] | None = None
    start: Start | None = None
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.01
    decay: Literal["all", "matrices"] = "all"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.0
    nesterov: bool = False
    schedule: Literal["constant", "linear", "cosine"] | Schedule = "constant"
    warmup: float = 0
    clip: float | None = None
    batch_size: int = 32
    accumulate: int = 1
    steps: int | None = None
    epochs: float | None = None
    drop_last: bool = False
    seed: int = 0
    data_seed: int | None = None
    evaluate_every: int = 0
    patience: int | None = None
    keep: Literal["last", "best"] = "last"
    lora: Any = None

    def __post_init__(self) -> None:
        raise_all(_problems(self))

    def length(self, examples: int) -> int:
        """How many steps it takes, for so many examples."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(math.ceil(self.epochs * self.batches(examples) / self.accumulate), 1)

    def batches(self, examples: int) -> int:
        """Micro-batches in an epoch of so many examples."""
        size = int(self.batch_size)  # NumPy's unsigned numbers have no negatives
        return max(examples // size, 1) if self.drop_last else -(-examples // size)

    def learning_rate(self, step: int, steps: int) -> float:
        """The learning rate of step 0, 1, … of so many."""
        warmup = self.warmup * steps if 0 < self.warmup < 1 else self.warmup
        if step < warmup:
            return self.lr * (step + 1) / (warmup + 1)
        if self.schedule == "constant":
            return self.lr
        if callable(self.schedule):
            return self.lr * _factor(self, step, steps)
        done = (step - warmup) / max(steps - warmup, 1)
        return self.lr * (1 - done if self.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2)


#: What a setting may be at most: products of two such, and quotients by 1 − β, stay within float32.
_LARGE = 1e9
#: Settings that count something.
_WHOLE = ("batch_size", "accumulate", "evaluate_every")


def _is_number(value: object, *, whole: bool = False) -> bool:
    kinds = numbers.Integral if whole else numbers.Real
    return isinstance(value, kinds) and not isinstance(value, bool)


def _problems(member: Member) -> list[InputError]:
    where = f"member `{member.name}`"
    bounds: dict[str, tuple[float, float]] = {
        "lr": (0, _LARGE),
        "weight_decay": (0, _LARGE),
        "eps": (0, _LARGE),
        "momentum": (0, 1),
        "warmup": (0, _LARGE),
        "batch_size": (1, math.inf),
        "accumulate": (1, math.inf),
        "evaluate_every": (0, math.inf),
    }
    found = []
    for name, (low, high) in bounds.items():
        value = getattr(member, name)
        whole = name in _WHOLE
        if not _is_number(value, whole=whole) or not low <= value <= high:
            kind = "a whole number" if whole else "a number"
            until = "on" if high == math.inf else f"to {high:g}"
            hint = f"it is {kind} from {low:g} {until}"
            found.append(InputError(f"`{name}` is {value!r}", where=where, hint=hint))
    betas: Any = member.betas
    pair = isinstance(betas, tuple | list) and len(betas) == 2
    if not pair or not all(_is_number(beta) and 0 <= beta < 1 for beta in betas):
        found.append(InputError(f"`betas` are {betas!r}", where=where, hint="two numbers from 0 to below 1"))
    if member.clip is not None and not (_is_number(member.clip) and member.clip > 0):
        hint = "give a norm above 0, or None"
        found.append(InputError(f"`clip` is {member.clip!r}", where=where, hint=hint))
    if member.nesterov and not member.momentum:
        found.append(InputError("`nesterov` needs a momentum", where=where, hint="give momentum="))
    for name in ("seed", "data_seed", "patience"):
        value = getattr(member, name)
        good = value is not None and _is_number(value, whole=True) and 0 <= value < 2**63
        if not good and (value is not None or name == "seed"):
            hint = "it is a whole number from 0 on"
            found.append(InputError(f"`{name}` is {value!r}", where=where, hint=hint))
    if (member.steps is None) == (member.epochs is None):
        found.append(InputError("give `steps` or `epochs`", where=where, hint="one of the two says how long"))
    if (member.patience is not None or member.keep == "best") and not member.evaluate_every:
        what = "`patience` and `keep` need validations"
        found.append(InputError(what, where=where, hint="say every how many steps: evaluate_every="))
    for name in ("steps", "epochs"):
        value = getattr(member, name)
        good = _is_number(value, whole=name == "steps") and 0 < value <= _LARGE
        if value is not None and not good:
            hint = f"give a {'whole ' if name == 'steps' else ''}number above 0, up to {_LARGE:g}"
            found.append(InputError(f"`{name}` is {value!r}", where=where, hint=hint))
    choices = {
        "optimizer": ("adamw", "sgd"),
        "decay": ("all", "matrices"),
        "schedule": ("constant", "linear", "cosine"),
        "keep": ("last", "best"),
    }
    for name, valid in choices.items():
        value = getattr(member, name)
        if value not in valid and not (name == "schedule" and callable(value)):
            found.append(InputError(f"`{name}` is `{value}`", where=where, hint=nearest(str(value), valid)))
    for name in ("nesterov", "drop_last"):
        value = getattr(member, name)
        if value not in (True, False):
            found.append(InputError(f"`{name}` is {value!r}", where=where, hint="it is True or False"))
    return found or _kinds(member, where)


def _kinds(member: Member, where: str) -> list[InputError]:
    """What is of no kind that its setting takes; a schedule is tried."""
    found = []
    if not isinstance(member.name, str) or "\0" in member.name:
        found.append(InputError(f"`name` is {member.name!r}", hint="give a string without a null byte"))
    if not _is_task(member.task):
        hint = "give a plait.Task, the name of one of the fleet's, or several of them"
        found.append(InputError(f"`task` is {member.task!r}", where=where, hint=hint))
    start = member.start
    if start is not None and not (isinstance(start, nn.Module | str | Path | After) or callable(start)):
        hint = "give a module, a function that makes one, a checkpoint's path, or After(another member)"
        found.append(InputError(f"`start` is {start!r}", where=where, hint=hint))
    if callable(member.schedule):
        with noted(found):
            _factor(member, 0, member.steps or 1)
    return found


def _described_task(task: Any) -> Any:
    if isinstance(task, Mapping):
        return dict(task)
    if isinstance(task, Task):
        return task.name
    several = isinstance(task, Sequence) and not isinstance(task, str)
    return [_described_task(each) for each in task] if several else task


def _is_task(task: Any) -> bool:
    """A task, a name, or a mixture of such."""
    if isinstance(task, Sequence | Mapping) and not isinstance(task, str):
        return all(isinstance(each, str if isinstance(task, Mapping) else Task | str) for each in task)
    return task is None or isinstance(task, Task | str)


def _factor(member: Member, step: int, steps: int) -> float:
    """What a member's own schedule gives.

    Raises:
        InputError: it can't be called so, or gives no number from 0 on.
    """
    assert callable(member.schedule)
    where, hint = f"member `{member.name}`", "it is a function of (step, steps) that gives a factor from 0 on"
    try:
        given: Any = member.schedule(step, steps)
        factor = math.nan if isinstance(given, str | bytes) else float(given)
    except Exception as error:
        what = f"its schedule can't be used at step {step} of {steps}: {type(error).__name__}: {error}"
        raise InputError(what, where=where, hint=hint) from error
    if not 0 <= factor <= _LARGE:
        raise InputError(f"its schedule gives {given!r} at step {step} of {steps}", where=where, hint=hint)
    return factor


def described(member: Member) -> dict[str, Any]:
    """A member's settings as plain values, for records and fingerprints."""
    plain = {}
    for entry in fields(member):
        value = getattr(member, entry.name)
        if entry.name == "task":
            value = _described_task(value)
        elif callable(value):
            value = getattr(value, "__qualname__", type(value).__name__)
        elif entry.name == "lora" and value is not None:
            value = {k: sorted(v) if isinstance(v, set) else v for k, v in value.to_dict().items()}
        elif isinstance(value, After | Path | tuple):
            value = list(value) if isinstance(value, tuple) else str(value)
        plain[entry.name] = value
    return plain

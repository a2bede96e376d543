"""What an extraction does with each tensor, decided before any is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from plait.checkpoint import Checkpoint
from plait.engine._lora_kinds import Kind, matrix_kinds, tied_embeddings
from plait.errors import InputError, nearest, raise_all


@dataclass
class ExtractPlan:
    """What happens to each tensor.

    Attributes:
        factored: modules whose weight becomes factors if it changed, and their kinds.
        biases: tensors that go along whole if they changed.
        saved: modules to save → their tensors.
        left: tensors that the adapter can't carry, and why.
        measured: tensors whose change is to be measured.
    """

    factored: dict[str, Kind] = field(default_factory=dict)
    biases: list[str] = field(default_factory=list)
    saved: dict[str, list[str]] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    measured: list[str] = field(default_factory=list)


def plan_extraction(
    finetuned: Checkpoint, base: Checkpoint, targets: Sequence[str] | None, to_save: Sequence[str]
) -> ExtractPlan:
    """Sort every tensor of both models.

    Args:
        finetuned: the fine-tuned model.
        base: what it was trained from.
        targets: globs on the modules to factor; all matrices if None.
        to_save: globs on the modules to save whole.

    Raises:
        InputError: a glob matches nothing, or a tied embedding is to be saved whole.
    """
    kinds = matrix_kinds(base)
    modules = {name.rpartition(".")[0] for name in (*finetuned, *base)}
    wanted = set(kinds) if targets is None else _matching(targets, kinds, "target_modules")
    kept = _matching(to_save, modules, "modules_to_save")
    tied = tied_embeddings(base, kinds)
    if tied & kept:
        name = min(tied & kept)
        what = f"`{name}` in modules_to_save is tied to the output head, and PEFT would not save that"
        raise InputError(what, hint="name it in target_modules instead")
    tied -= wanted if targets is not None else set()
    plan = ExtractPlan()
    for name in dict.fromkeys((*finetuned, *base)):
        module = name.rpartition(".")[0]
        if module in kept and name in finetuned:
            plan.saved.setdefault(module, []).append(name)
            if _comparable(name, finetuned, base):
                plan.measured.append(name)
        elif why := _not_both(name, finetuned, base):
            plan.left[name] = why
            if _comparable(name, finetuned, base):
                plan.measured.append(name)
        elif module in tied and name.endswith(".weight"):
            # PEFT leaves the head without the factors, or adds them twice when it merges
            plan.left[name] = "tied to the output head; it can be named among the targets"
            plan.measured.append(name)
        elif module in wanted and name.endswith(".weight"):
            plan.factored[module] = kinds[module]
        else:
            plan.measured.append(name)
            if name.endswith(".bias"):
                plan.biases.append(name)
            else:
                plan.left[name] = "not among the targets" if module in kinds else "not a matrix"
    return plan


def _comparable(name: str, finetuned: Checkpoint, base: Checkpoint) -> bool:
    return name in finetuned and name in base and finetuned[name].shape == base[name].shape


def _not_both(name: str, finetuned: Checkpoint, base: Checkpoint) -> str | None:
    """Why a tensor has no difference."""
    if name not in base:
        return "only in the fine-tuned model"
    if name not in finetuned:
        return "only in the base"
    if finetuned[name].shape != base[name].shape:
        return f"{list(finetuned[name].shape)}, and in the base {list(base[name].shape)}"
    if not base[name].dtype.is_floating_point or not finetuned[name].dtype.is_floating_point:
        return "not of a floating-point type"
    return None


def _matching(globs: Sequence[str], modules: Iterable[str], option: str) -> set[str]:
    """Modules whose name, or its end after a dot, matches a glob."""
    found: set[str] = set()
    names = list(modules)
    problems: list[InputError] = []
    for glob in globs:
        hits = {m for m in names if fnmatchcase(m, glob) or fnmatchcase(m, f"*.{glob}")}
        if not hits:
            hint = nearest(glob, {m.rpartition(".")[2] for m in names})
            problems.append(InputError(f"`{glob}` in {option} matches no module", hint=hint))
        found |= hits
    raise_all(problems)
    return found

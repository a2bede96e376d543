"""What is checked of a recipe and of a plan as wholes."""

from __future__ import annotations

import math
import os

import torch

from plait.engine._limits import memory_budget
from plait.engine._plan import Plan
from plait.errors import InputError, raise_all, size
from plait.methods import Method
from plait.recipe import ModelRef, Recipe, Slice


def check_device(name: str) -> None:
    """Raise an `InputError` unless torch can compute on the device and give back what it found."""
    try:
        torch.zeros(1, device=torch.device(name)).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0].partition(". ")[0]
        raise InputError(f"the device `{name}` can't be used: {reason}", hint="leave out --device") from error


def check_counts(recipe: Recipe, method: Method) -> list[InputError]:
    """A problem for every slice with too few or too many models, or without its base."""
    problems = []
    for module in recipe.modules:
        for part in module.slices:
            base = part.base or recipe.base
            if recipe.grammar == "mergekit" and method.base != "unused" and base is not None:
                problems += _without_base(part, base, recipe)
            count = sum(s.model != base or method.base == "unused" for s in part.sources)
            if method.base == "required" and base is None:
                hint = "name it: `base_model`" if recipe.grammar == "mergekit" else "name it: `base`"
                problems.append(
                    InputError(
                        f"the method `{method.name}` needs a base model", where=recipe.origin, hint=hint
                    )
                )
            if count < method.min_models or (method.max_models is not None and count > method.max_models):
                bounds = (
                    f"{method.min_models}"
                    if method.max_models == method.min_models
                    else (
                        f"at least {method.min_models}"
                        if method.max_models is None
                        else f"{method.min_models} to {method.max_models}"
                    )
                )
                beside = "" if method.base == "unused" else " besides the base"
                problems.append(
                    InputError(
                        f"the method `{method.name}` takes {bounds} models{beside}, not {count}",
                        where=recipe.origin,
                    )
                )
    return problems


def check_names(recipe: Recipe) -> list[InputError]:
    """A problem for every model that one slice has under two names (`./a` and `a`)."""
    problems = []
    for module in recipe.modules:
        for part in module.slices:
            base = part.base or recipe.base
            seen: dict[str, ModelRef] = {}
            for ref in ([] if base is None else [base]) + [source.model for source in part.sources]:
                if ref.live is not None or ref.nested is not None or not os.path.exists(ref.text):
                    continue
                first = seen.setdefault(os.path.realpath(ref.text), ref)
                if first.text != ref.text:
                    what = f"`{first.text}` and `{ref.text}` are one model"
                    where = recipe.places.get(ref.text, recipe.origin)
                    problems.append(InputError(what, where=where, hint="name it alike, or give it once"))
    return problems


def _without_base(part: Slice, base: ModelRef, recipe: Recipe) -> list[InputError]:
    """mergekit's slices list the base, whose layers are where it says."""
    if any(source.model == base for source in part.sources):
        return []
    what = (
        f"a slice of {', '.join(source.model.text for source in part.sources)} lacks the base `{base.text}`"
    )
    return [
        InputError(what, where=recipe.origin, hint="list it among the slice's `sources`, with its layers")
    ]


def check_memory(plan: Plan) -> None:
    """Raise an `InputError` for every tensor that must be held whole and does not fit."""
    budget = memory_budget(plan.options.memory)
    problems = []
    for output in plan.outputs:
        if output.settings is None or not plan.method.whole(output.settings):
            continue
        needed = math.prod(output.shape) * plan.compute.itemsize * (len(output.inputs) + 6)
        if needed > budget:
            problems.append(
                InputError(
                    f"`{plan.method.name}` must hold the tensor `{output.name}` whole: "
                    f"{size(needed)}, and the budget is {size(budget)}",
                    hint="raise --memory",
                )
            )
    raise_all(problems)

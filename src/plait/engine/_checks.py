"""What is checked of a recipe and of a plan as wholes."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from plait.engine._limits import memory_budget
from plait.engine._plan import Output, Plan
from plait.errors import InputError, raise_all, size
from plait.methods import Method, Order, Settings
from plait.recipe import ModelRef, Recipe, Slice


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


def check_whole(method: Method, outputs: Sequence[Output]) -> list[InputError]:
    """A problem where tensors that are ranked or summed together ask for different things.

    Ranking over the whole model takes one count for each model, so it needs the same models and options
    everywhere; what only a rule sees, such as weights, may differ.
    """
    first: tuple[Output, object] | None = None
    for output in outputs:
        if output.settings is None or not output.settings.numel:
            continue
        asked = _asked_of_whole(method, output, output.settings)
        if first is None:
            first = output, asked
        elif asked != first[1]:
            what = f"`{method.name}` works on the whole model, and `{first[0].name}` and `{output.name}` have"
            differing = "different models" if output.models != first[0].models else "different options"
            return [
                InputError(f"{what} {differing}", hint="set `scope: tensor`, or give all tensors the same")
            ]
    return []


def _asked_of_whole(method: Method, output: Output, settings: Settings) -> object:
    """What the stages over the whole model ask for at this tensor: the ranks of some number of elements."""
    asked: list[tuple[str, object]] = []
    for stage in method.stages(settings):
        if stage.scope != "model":
            continue
        ranks: object = None
        if isinstance(stage, Order):
            found = stage.ranks(10**9, [np.asarray(10**9)] * settings.models, settings)
            ranks = stage.exact, [[int(rank) for rank in each] for each in found]
        asked.append((stage.name, ranks))
    ranked = any(ranks is not None for _, ranks in asked)
    return asked, output.models if ranked else ()


def check_memory(plan: Plan) -> None:
    """Raise an `InputError` for every tensor that must be held whole and does not fit."""
    budget = memory_budget(plan.options.memory)
    problems = []
    for output in plan.outputs:
        needed = plan.held(output)
        if needed is not None and needed > budget:
            what = "matrices of" if output.settings and output.settings.matrices else "the tensor"
            keep = f", or copy it from the base with `keep: [{output.name}]`" if output.has_base else ""
            problems.append(
                InputError(
                    f"`{plan.method.name}` must hold {what} `{output.name}` whole: "
                    f"{size(needed)} ({needed} bytes), and the budget is {size(budget)}",
                    hint=f"raise --memory{keep}",
                )
            )
    raise_all(problems)

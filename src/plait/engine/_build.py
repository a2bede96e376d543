"""From a recipe to a plan: models are opened, aligned and checked, and every problem is told at once."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from plait.checkpoint import HEAD_FILE, Checkpoint
from plait.engine._align import matching, places
from plait.engine._checks import check_counts, check_memory, check_names, check_whole
from plait.engine._limits import RunOptions
from plait.engine._models import Models, find_ties
from plait.engine._modules import owners
from plait.engine._outputs import OutputBuilder
from plait.engine._plan import Output, Plan
from plait.engine._settings import Options, options_of
from plait.engine._stacked import StackedLayers
from plait.engine._stage import Stage, open_models
from plait.engine._vocabulary import align
from plait.errors import InputError, noted, raise_all, together
from plait.methods import Method
from plait.numerics import usable_device
from plait.recipe import (
    ModelRef,
    Recipe,
    Slice,
    filter_warnings,
    read_chat_template,
    recipe_models,
    resolve_chat_template,
)


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """Planning makes a few objects per tensor and no cycles; looking for some takes a third of its time."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


@_no_collector()
def build_plan(recipe: Recipe, options: RunOptions | None = None, known: Sequence[InputError] = ()) -> Plan:
    """Check everything and lay the merge out.

    Args:
        recipe: what to merge.
        options: how to run.
        known: what is wrong with the recipe already; it is told with whatever else is found.

    Raises:
        InputError: something is wrong; all that is found is named at once.
    """
    options = options or RunOptions()
    problems: list[InputError] = [*known]
    asked, chosen = _settled(recipe, options, problems)
    recipe = recipe if chosen is None else chosen.recipe
    opened, staged = {}, {}
    with noted(problems):
        opened, staged = open_models(
            recipe, recipe_models(recipe), lambda nested: build_plan(nested, options)
        )
    if known or chosen is None or not opened:
        raise together(problems)
    alignment = None
    warnings = [*recipe.warnings, *chosen.warnings, *_unused(recipe, chosen.method, opened)]
    used = {ref: opened[ref] for ref in recipe_models(recipe)}
    tied = find_ties(used)
    if recipe.tokenizer is not None:
        with noted(problems):
            opened, tied, alignment = align(recipe.tokenizer, opened, tied, recipe.base, staged)
        if alignment is None:
            raise together(problems)
        used = {ref: opened[ref] for ref in used}
        warnings += alignment.warnings
    chat_template = _chat_template(recipe, used, staged, problems)
    excluded: list[str] = []
    stacks: list[StackedLayers] = []
    # Ids of tokens in a config belong to the vocabulary, so the files come from where that comes from.
    first = recipe_models(asked if alignment is None else recipe)[0]
    modules = owners(recipe, used, matching(recipe.exclude), warnings, problems)
    models = Models(used, tied, matching(recipe.keep))
    found = list(places(recipe, models, modules, problems, excluded, first, stacks))
    builder = OutputBuilder(recipe, chosen, opened, problems)
    outputs = [output for place in found for output in builder.outputs(place)]
    if not outputs and not problems:
        problems.append(InputError("nothing is left to merge", where=recipe.origin))
    if not builder.uniform:
        problems += check_whole(chosen.method, outputs)
    raise_all(problems)
    if builder.copied_complex:
        warnings.append(_about_complex(builder.copied_complex, outputs))
    names = [name for place in found for name in (place.name, *place.names)]
    warnings += filter_warnings(recipe, [*names, *excluded])
    plan = Plan(
        asked,
        chosen.method,
        opened,
        outputs,
        excluded,
        warnings,
        compute=torch.float64 if options.float64 or builder.wide else torch.float32,
        options=options,
        alignment=alignment,
        chat_template=chat_template,
        first=first,
        tied=frozenset(tied[first]),
        stacks=stacks,
        staged=staged,
    )
    check_memory(plan)
    return plan


def _settled(
    recipe: Recipe, options: RunOptions, problems: list[InputError]
) -> tuple[Recipe, Options | None]:
    """The recipe with its own code, and its options in canonical order; None where it names no method.

    What is wrong with the device, the method, its options and the number of models is added to `problems`.
    """
    chosen = None
    with noted(problems):
        usable_device(options.device, hint="leave out --device")
    problems += check_names(recipe)
    with noted(problems):
        if recipe.code is not None:
            recipe = _with_code(recipe, options)
        chosen = options_of(recipe)
        if chosen.method.symmetric:
            chosen = options_of(_in_canonical_order(recipe))
        if not problems:  # a faulty recipe may lack models only because they are written wrongly
            chosen.problems += check_counts(recipe, chosen.method)
        problems += chosen.problems
    return recipe, chosen


def _unused(recipe: Recipe, method: Method, opened: Mapping[ModelRef, Checkpoint]) -> Iterator[str]:
    """What is there and has no part in the result."""
    merged = {source.model for module in recipe.modules for part in module.slices for source in part.sources}
    if method.base == "unused" and recipe.base is not None and recipe.base not in merged:
        beside = "config, tokenizer and other files"
        yield f"`{method.name}` merges the listed models alone: the base `{recipe.base}` gives only {beside}"
    for ref, checkpoint in opened.items():
        if checkpoint.folder is None or ref.nested is not None or not checkpoint.fingerprint:
            continue
        files = sorted(path.name for path in checkpoint.folder.glob("*.safetensors"))
        # A task's head beside its body is where `plait.tasks` puts it.
        stray = [name for name in files if name not in checkpoint.fingerprint and name != HEAD_FILE]
        if stray:
            yield f"`{ref}`: not part of its weights: {', '.join(f'`{name}`' for name in stray[:4])}" + (
                f" and {len(stray) - 4} more" if len(stray) > 4 else ""
            )


def _about_complex(names: Sequence[str], outputs: Sequence[Output]) -> str:
    source = next(output.models[0] for output in outputs if output.name == names[0])
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"complex numbers are not merged: `{names[0]}`{more} is a copy of `{source}`'s"


def _chat_template(
    recipe: Recipe,
    opened: Mapping[ModelRef, Checkpoint],
    staged: Mapping[ModelRef, Stage],
    problems: list[InputError],
) -> str | None:
    if recipe.chat_template is None:
        return None
    try:
        own = [_own_template(opened[ref], staged.get(ref)) for ref in opened]
        return resolve_chat_template(recipe.chat_template, own)
    except InputError as error:
        problems.append(error)
        return None


def _own_template(model: Checkpoint, stage: Stage | None) -> str | None:
    """A model's chat template: the one in its folder, or the one that its stage will have."""
    if stage is None:
        return None if model.folder is None else read_chat_template(model.folder)
    plan = stage.plan
    if plan.chat_template is not None:
        return plan.chat_template
    return _own_template(plan.opened[plan.tokenizer_from], plan.staged.get(plan.tokenizer_from))


def _in_canonical_order(recipe: Recipe) -> Recipe:
    """The recipe with its models by name: listing them in another order changes no weight, buffers included.

    The files that travel are no weights: without a base they are those of the model that is listed first.
    """

    def in_order(part: Slice) -> Slice:
        return replace(part, sources=tuple(sorted(part.sources, key=lambda s: recipe.identity(s.model.text))))

    modules = tuple(
        replace(module, slices=tuple(in_order(part) for part in module.slices)) for module in recipe.modules
    )
    return replace(recipe, modules=modules)


def _with_code(recipe: Recipe, options: RunOptions) -> Recipe:
    from plait.engine._code import load_method

    return load_method(recipe, allowed=options.allow_code)

"""Which tensors of which models make each output tensor: by name, by layer, with tied weights resolved.

Every tensor of every model ends in the output, is excluded by name, or is reported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import translate

from plait.engine._models import Models, Owns, Place, place
from plait.engine._stacked import StackedLayers, Stacking
from plait.errors import InputError
from plait.recipe import ModelRef, Module, Recipe, layer_position


def matching(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a name matches one of the globs."""
    if not patterns:
        return lambda name: False
    joined = re.compile("|".join(translate(pattern) for pattern in patterns))
    return lambda name: joined.match(name) is not None


def places(
    recipe: Recipe,
    models: Models,
    modules: Sequence[tuple[Module, Owns]],
    problems: list[InputError],
    excluded: list[str],
    template: ModelRef,
    stacks: list[StackedLayers],
) -> Iterator[Place]:
    """The output's tensors, in the order of the first model that has them.

    Args:
        recipe: the recipe.
        models: its models.
        modules: its modules, and which names belong to each.
        problems: what is wrong is added here.
        excluded: names left out are added here.
        template: the model whose config the output takes.
        stacks: stacks of layers that the recipe builds anew are added here.
    """
    leave_out = matching(recipe.exclude)
    for module, owns in modules:
        stacked = any(source.layer_range for part in module.slices for source in part.sources)
        if stacked:
            stacking = Stacking(recipe, models, module, owns, problems)
            stack = stacking.layers(template)
            stacks += [] if stack is None else [stack]
            found = stacking.places()
        else:
            # Here names are those of the output: one that is left out need not be in every model.
            names = models.union(list(models.opened), owns)
            out = {name for name in names if leave_out(name)}
            excluded += [name for name in names if name in out]
            kept = (lambda name, owns=owns, out=out: owns(name) and name not in out) if out else owns
            found = _whole(recipe, models, module, kept, problems)
        for one in found:
            if one is None:
                continue
            if leave_out(one.name):
                excluded.append(one.name)
            else:
                yield one


def _whole(
    recipe: Recipe, models: Models, module: Module, owns: Owns, problems: list[InputError]
) -> Iterator[Place | None]:
    """A module merged from whole models."""
    if len(module.slices) != 1:
        what = "several slices need a `layer_range` in each source"
        problems.append(InputError(what, where=recipe.origin or module.name))
        return
    part = module.slices[0]
    base = part.base or recipe.base
    refs = list(dict.fromkeys(([base] if base else []) + [s.model for s in part.sources]))
    layers = models.layers[refs[0]]
    for name in models.union(refs, owns):
        inside = layers.layer_of(name)
        t = 0.0 if inside is None else layer_position(inside[1], layers.count(inside[0]))
        names = [name] * len(part.sources)
        yield place(models, module, part, (name, t, base), names, name, problems)

"""Several documents in one file: each is a stage, and a stage's name stands for its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from plait.errors import InputError, raise_all
from plait.recipe._document import quote
from plait.recipe._dump import stage_name
from plait.recipe._schema import ModelRef, Module, Recipe, Slice, Tokenizer, recipe_models
from plait.recipe._yaml import YamlDocument


def link_stages(recipes: list[Recipe], documents: list[YamlDocument]) -> list[Recipe]:
    """Put the stages in the place of their names.

    Args:
        recipes: one per document.
        documents: where they came from.

    Returns:
        The recipes, each after those it builds on; the last one (the document without a name, else the
        last document) makes the output.

    Raises:
        InputError: names that are given twice, more than one stage without a name, stages in a circle.
    """
    if len(recipes) == 1:
        return recipes
    names = _names(recipes, documents)
    unnamed = [index for index, recipe in enumerate(recipes) if recipe.name is None]
    final = unnamed[0] if unnamed else len(recipes) - 1
    linked: dict[int, Recipe] = {}
    for index in [*(i for i in range(len(recipes)) if i != final), final]:
        _link(index, recipes, names, linked, [])
    others = [recipe for index, recipe in linked.items() if index != final]
    return [*others, _with_unused(linked[final], others)]


def _names(recipes: list[Recipe], documents: list[YamlDocument]) -> dict[str, int]:
    names: dict[str, int] = {}
    problems = []
    for index, (recipe, document) in enumerate(zip(recipes, documents, strict=True)):
        if recipe.name is not None and names.setdefault(recipe.name, index) != index:
            where = document.locate(("name",))
            problems.append(InputError(f"the stage {quote(recipe.name)} is here twice", where=where))
    unnamed = [d for r, d in zip(recipes, documents, strict=True) if r.name is None]
    if len(unnamed) > 1:
        hint = "every stage but the one that makes the output needs a `name`"
        problems.append(InputError("a second stage has no `name`", where=unnamed[1].locate(()), hint=hint))
    raise_all(problems)
    return names


def _link(
    index: int, recipes: list[Recipe], names: dict[str, int], linked: dict[int, Recipe], path: list[int]
) -> Recipe:
    if index in path:
        circle = " → ".join(quote(recipes[i].name) for i in [*path[path.index(index) :], index])
        raise InputError(f"the stages build on each other in a circle: {circle}", where=recipes[index].origin)
    if index not in linked:

        def resolve(model: ModelRef) -> ModelRef:
            if model.nested is not None:
                return replace(model, nested=map_models(model.nested, resolve))
            stage = names.get(stage_name(model.text)) if model.live is None else None
            if stage is None:
                return model
            return replace(model, nested=_link(stage, recipes, names, linked, [*path, index]))

        linked[index] = map_models(recipes[index], resolve)
    return linked[index]


def map_models(recipe: Recipe, change: Callable[[ModelRef], ModelRef]) -> Recipe:
    """The recipe with `change` applied to every model in it."""
    base = None if recipe.base is None else change(recipe.base)
    modules = tuple(_map_module(module, change) for module in recipe.modules)
    tokenizer = None if recipe.tokenizer is None else _map_tokenizer(recipe.tokenizer, change)
    return replace(recipe, base=base, modules=modules, tokenizer=tokenizer)


def _map_module(module: Module, change: Callable[[ModelRef], ModelRef]) -> Module:
    def run(part: Slice) -> Slice:
        sources = tuple(replace(source, model=change(source.model)) for source in part.sources)
        return replace(part, sources=sources, base=None if part.base is None else change(part.base))

    return replace(module, slices=tuple(run(part) for part in module.slices))


def _map_tokenizer(tokenizer: Tokenizer, change: Callable[[ModelRef], ModelRef]) -> Tokenizer:
    source = change(tokenizer.source) if isinstance(tokenizer.source, ModelRef) else tokenizer.source
    tokens = {
        token: entry if entry.model is None else replace(entry, model=change(entry.model))
        for token, entry in tokenizer.tokens.items()
    }
    return replace(tokenizer, source=source, tokens=tokens)


def _with_unused(final: Recipe, others: list[Recipe]) -> Recipe:
    """The final recipe, with a warning for every stage that it does not need."""
    needed: set[str | None] = set()

    def visit(recipe: Recipe) -> None:
        for model in recipe_models(recipe):
            if model.nested is not None and model.nested.name not in needed:
                needed.add(model.nested.name)
                visit(model.nested)

    visit(final)
    unused = [f"the stage `{r.name}` is not part of the output" for r in others if r.name not in needed]
    return replace(final, warnings=(*final.warnings, *unused)) if unused else final

"""Recipes from a file, a text or a mapping, in whichever grammar they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plait.errors import InputError, nearest, noted, raise_all
from plait.recipe._document import quote
from plait.recipe._mergekit import MergekitDocument, read_mergekit
from plait.recipe._plait import PlaitDocument, Read, read_plait
from plait.recipe._schema import Recipe
from plait.recipe._stages import link_stages
from plait.recipe._yaml import DEEPEST, KeyPath, YamlDocument, parse_yaml, read_yaml, show_path


def load_recipe(source: str | Path | Mapping[str, Any]) -> list[Recipe]:
    """Read a recipe; its stages, if it has any, come before what builds on them.

    Args:
        source: a path to a YAML (or JSON) file, YAML text (recognised by its line breaks), or a mapping.

    Returns:
        The recipes; the last one makes the output and holds the stages that it needs.

    Raises:
        InputError: the recipe can't be read or says something that it can't; all problems are named.
    """
    recipes, problems = read_recipe(source)
    raise_all(problems)
    return recipes


def read_recipe(source: str | Path | Mapping[str, Any]) -> tuple[list[Recipe], list[InputError]]:
    """As `load_recipe`, but problems are given back, with the recipes as far as they could be read.

    With problems the recipes serve to look for more of them, such as models that are not there.
    """
    documents = [stage for document in _documents(source) for stage in _with_stages(document)]
    recipes, problems = [], []
    for document in documents:
        recipe, found = read_document(document)
        problems += found
        recipes += [] if recipe is None else [recipe]
    if len(recipes) == len(documents):
        with noted(problems):
            recipes = link_stages(recipes, documents)
    return recipes, problems


def read_document(document: YamlDocument) -> Read:
    """One document, by the grammar that its top keys say."""
    keys = document.data
    if "merge" in keys and "merge_method" in keys:
        what = "it mixes mergekit's grammar (`merge_method`) with plait's (`merge`)"
        return None, [InputError(what, where=document.locate(("merge",)), hint="keep one of the two")]
    if "merge_method" in keys:
        return read_mergekit(document)
    if "merge" in keys:
        return read_plait(document, read_document)
    return None, [_no_method(document)]


def _no_method(document: YamlDocument) -> InputError:
    """Neither grammar's mark is there: find the key that was meant to be it, or say what is needed."""
    what = "a recipe needs `merge` (plait's grammar) or `merge_method` (mergekit's)"
    known = {*PlaitDocument.model_fields, *MergekitDocument.model_fields}
    for key in document.data:
        hint = nearest(key, ("merge", "merge_method"))
        if key not in known and "did you mean" in hint:
            return InputError(f"{what}, and this has `{key}`", where=document.locate((key,)), hint=hint)
    return InputError(what, where=document.locate(()))


def _documents(source: str | Path | Mapping[str, Any]) -> list[YamlDocument]:
    if isinstance(source, Mapping):
        return [YamlDocument(_plain(source, ()), "the recipe")]
    if isinstance(source, str) and "\n" in source:
        return parse_yaml(source, "the recipe")
    return read_yaml(Path(source))


def _with_stages(document: YamlDocument) -> list[YamlDocument]:
    """The documents under `stages` (where `recipe_to_dict` puts them), then the document without them."""
    stages = document.data.get("stages")
    if stages is None:
        return [document]
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise InputError("`stages` must be a list of recipes", where=document.locate(("stages",)))
    rest = {key: value for key, value in document.data.items() if key != "stages"}
    inner = [document.below(("stages", index), stage) for index, stage in enumerate(stages)]
    return [*inner, YamlDocument(rest, document.where, document.lines)]


def _plain(value: Any, path: KeyPath) -> Any:
    """A copy made of dicts, lists and scalars only, so that a mapping from Python is like one from YAML."""
    if len(path) > DEEPEST:
        raise InputError(f"the recipe is nested deeper than {DEEPEST} levels")
    if isinstance(value, Mapping):
        wrong = [key for key in value if not isinstance(key, str)]
        if wrong:
            raise InputError(f"the key {quote(wrong[0])} of `{show_path(path) or 'the recipe'}` is not text")
        return {key: _plain(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(item, (*path, index)) for index, item in enumerate(value)]
    raise InputError(f"`{show_path(path)}` is {quote(value)}, and a recipe holds plain values only")

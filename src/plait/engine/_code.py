"""A method from a Python file that a recipe names: refused unless the user consents."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

from plait.engine._function import as_method
from plait.errors import InputError
from plait.methods import Method
from plait.recipe import Recipe


def load_method(recipe: Recipe, *, allowed: bool) -> Recipe:
    """The recipe with its method taken from its `code` file.

    Raises:
        InputError: running code was not allowed, the file fails, or it does not define the method.
    """
    path = recipe.code
    if path is None or not isinstance(recipe.method, str):
        return recipe
    if not allowed:
        raise InputError(
            "the recipe wants to run this Python file", where=str(path), hint="read it, then add --allow-code"
        )
    spec = importlib.util.spec_from_file_location("plait_recipe_code", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError("this is not a Python file", where=str(path))
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's file raises
        raise InputError(f"it fails: {type(error).__name__}: {error}", where=str(path)) from error
    found = getattr(module, recipe.method, None)
    if found is None:
        raise InputError(f"it does not define `{recipe.method}`", where=str(path))
    if not callable(found) and not isinstance(found, Method):
        raise InputError(
            f"its `{recipe.method}` is a {type(found).__name__}, not a function", where=str(path)
        )
    method = as_method(found)
    return replace(recipe, method=replace(method, name=recipe.method), code=path)

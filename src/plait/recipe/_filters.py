"""Filters by tensor name: mergekit's are substrings, plait's are globs on the whole name."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from plait.recipe._schema import Grammar, Recipe, Setting
from plait.recipe._shape import levels
from plait.recipe._yaml import KeyPath, show_path

_SHOWN = 4


def name_matcher(pattern: str, grammar: Grammar) -> Callable[[str], object]:
    """A test of tensor names; its result is true or false by truth."""
    if grammar == "mergekit":
        return lambda name: pattern in name
    return re.compile(fnmatch.translate(pattern)).match


def settings_with_paths(recipe: Recipe) -> Iterator[tuple[KeyPath, str, Setting]]:
    """Every setting of a recipe: its parameter's path, its level, and itself."""
    for path, level, parameters in levels(recipe.modules, recipe.parameters):
        for key, settings in parameters.items():
            for setting in settings:
                yield (*path, key), level, setting
    if isinstance(recipe.method, tuple):
        for index, part in enumerate(recipe.method):
            for key, settings in part.options.items():
                for setting in settings:
                    yield ("merge", index, key), "part", setting


def filter_warnings(recipe: Recipe, tensor_names: Iterable[str]) -> list[str]:
    """What filters do that their writer may not have meant, one sentence each.

    A filter, an `exclude` or a `keep` that matches no tensor; and in mergekit's grammar, where filters are
    substrings, one that cuts a number in two (`layers.1` also hits layers 10 to 19).
    """
    names = list(dict.fromkeys(tensor_names))
    places: dict[str, list[str]] = {}
    for path, _, setting in settings_with_paths(recipe):
        if setting.filter is not None:
            shown = places.setdefault(setting.filter, [])
            if show_path(path) not in shown:
                shown.append(show_path(path))
    found = []
    for pattern, paths in places.items():
        matches = name_matcher(pattern, recipe.grammar)
        hits = [name for name in names if matches(name)]
        where = ", ".join(f"`{path}`" for path in paths[:_SHOWN])
        if not hits:
            found.append(f"{where}: the filter `{pattern}` matches no tensor{_glob_hint(pattern, recipe)}")
        elif recipe.grammar == "mergekit" and (cut := _cut_numbers(pattern, hits)):
            found.append(f"{where}: {cut}")
    for key, patterns in (("exclude", recipe.exclude), ("keep", recipe.keep)):
        for pattern in patterns:
            matches = name_matcher(pattern, "plait")
            if not any(matches(name) for name in names):
                found.append(f"`{key}`: the glob `{pattern}` matches no tensor")
    return found


def _glob_hint(pattern: str, recipe: Recipe) -> str:
    if recipe.grammar == "mergekit" or any(sign in pattern for sign in "*?["):
        return ""
    return f"; a filter is a glob on the whole name, so perhaps `*{pattern}*` is meant"


def _cut_numbers(pattern: str, hits: Sequence[str]) -> str:
    """A sentence if the substring ends (or begins) inside a number in some names and not in others."""
    escaped = re.escape(pattern)
    before = r"(?<!\d)" if pattern[:1].isdigit() else ""
    after = r"(?!\d)" if pattern[-1:].isdigit() else ""
    if not before and not after:
        return ""
    whole = re.compile(before + escaped + after)
    others = [name for name in hits if not whole.search(name)]
    if not others or len(others) == len(hits):
        return ""
    numbers = re.compile(r"\d*" + escaped + r"\d*")
    longer = list(dict.fromkeys(match[0] for name in others if (match := numbers.search(name))))
    shown = ", ".join(f"`{text}`" for text in longer[:_SHOWN]) + (", ..." if len(longer) > _SHOWN else "")
    hint = f"; for that one alone, end it with the dot: `{pattern}.`" if after else ""
    return f"the filter `{pattern}` is a substring in mergekit's grammar, so it also hits {shown}{hint}"

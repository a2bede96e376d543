"""Which module of a recipe each tensor belongs to, by its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from plait.checkpoint import Checkpoint, find_embeddings
from plait.engine._models import Owns
from plait.errors import InputError
from plait.recipe import ModelRef, Module, Recipe

#: The module of what no other module's name fits.
_REST = (None, "default")


def owners(
    recipe: Recipe,
    opened: Mapping[ModelRef, Checkpoint],
    leave_out: Callable[[str], bool],
    warnings: list[str],
    problems: list[InputError],
) -> list[tuple[Module, Owns]]:
    """Each module with a test of the names that are its own.

    A module `encoder` has the tensors whose names begin with `encoder.`; if there are none, those that have
    `.encoder.` before their layer's number. What fits no module's name belongs to the module `default` or,
    in mergekit's grammar, to the only one whose name fits nothing, as its tables call some by names of
    their own; without such a module an output head belongs to the one with the embedding.

    Args:
        recipe: the recipe.
        opened: its models.
        leave_out: names that need no module.
        warnings: what the user should know is added here.
        problems: what is wrong is added here.
    """
    if len(recipe.modules) == 1 and recipe.modules[0].name in _REST:
        return [(recipe.modules[0], lambda name: True)]
    names = list(dict.fromkeys(name for checkpoint in opened.values() for name in checkpoint))
    found = {str(m.name): _prefixes(str(m.name), names) for m in recipe.modules if m.name not in _REST}
    rest = [str(m.name) for m in recipe.modules if not found.get(str(m.name))]
    unknown = [name for name in rest if name not in _REST]
    if recipe.grammar == "mergekit" and len(unknown) == len(rest) == 1 and len(recipe.modules) > 1:
        warnings.append(
            f"no tensor's name has `{rest[0]}`, so that module takes what the other modules leave"
        )
    elif unknown:
        problems += [_unknown(recipe, name, names) for name in unknown]
        return []
    owner = _owner(found, names, rest[0] if rest else None)
    heads = set().union(*(find_embeddings(c, c.config) for c in opened.values()))
    with_embedding = next((owner[name] for name in names if name in heads and name in owner), None)
    if with_embedding is not None:
        owner = {**dict.fromkeys(heads, with_embedding), **owner}
    lost = [name for name in names if name not in owner and not leave_out(name)]
    if lost:
        problems.append(_unowned(recipe, lost))
    return [(m, lambda name, own=m.name: owner.get(name) == own) for m in recipe.modules]


def _unknown(recipe: Recipe, module: str, names: Iterable[str]) -> InputError:
    tops = ", ".join(sorted({name.split(".")[0] for name in names}))
    what = f"no model has tensors of a module `{module}`"
    return InputError(what, where=recipe.origin, hint=f"names begin with: {tops}")


def _prefixes(module: str, names: Iterable[str]) -> set[str]:
    """What a module's names begin with."""
    if any(name.startswith(f"{module}.") for name in names):
        return {f"{module}."}
    inside = re.compile(rf"(?:[^\d.][^.]*\.)*?{re.escape(module)}\.")
    return {match[0] for name in names if (match := inside.match(name))}


def _owner(prefixes: Mapping[str, set[str]], names: Sequence[str], rest: str | None) -> dict[str, str]:
    """Name → its module: the one with the longest prefix, or the rest's."""
    pairs = sorted(((p, m) for m, ps in prefixes.items() for p in ps), key=lambda pair: -len(pair[0]))
    found = {name: next((m for p, m in pairs if name.startswith(p)), rest) for name in names}
    return {name: module for name, module in found.items() if module is not None}


def _unowned(recipe: Recipe, lost: Sequence[str]) -> InputError:
    shown = ", ".join(f"`{name}`" for name in lost[:3]) + (", ..." if len(lost) > 3 else "")
    return InputError(
        f"{len(lost)} tensors belong to no module of the recipe: {shown}",
        where=recipe.origin,
        hint="add a module `default` for them, or leave them out with `exclude`",
    )

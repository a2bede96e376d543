"""The value of a parameter for one tensor of one model: four levels, filters, gradients.

The innermost level that has a value wins: the source (a model in a slice), the output slice, the module,
the part of a pipeline, the whole recipe. In a level the first setting whose filter lets the tensor's name
through counts; if none does, the next level is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from plait.errors import InputError, raise_all
from plait.recipe._document import quote
from plait.recipe._filters import name_matcher, settings_with_paths
from plait.recipe._schema import Module, Parameters, Part, Recipe, Scalar, Setting, Slice, Source
from plait.recipe._values import Kind, coerce, interpolate
from plait.recipe._yaml import show_path


class Missing:
    """The type of `MISSING`, which stands for a parameter that the recipe does not set."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()


@dataclass(frozen=True)
class Use:
    """One place of a recipe that sets a parameter.

    Attributes:
        path: `models[1].parameters.density`.
        level: `recipe`, `module`, `slice`, `source` or `part`.
        varies: the value depends on the layer (a gradient) or on the tensor's name (a filter).
        values: the value, or those of the gradient.
    """

    path: str
    level: str
    varies: bool
    values: tuple[Scalar, ...] = ()


def used_keys(recipe: Recipe) -> dict[str, list[Use]]:
    """Every parameter that the recipe sets → where."""
    found: dict[str, list[Use]] = {}
    for path, level, setting in settings_with_paths(recipe):
        values = setting.value if isinstance(setting.value, tuple) else (setting.value,)
        varies = setting.filter is not None or isinstance(setting.value, tuple)
        found.setdefault(str(path[-1]), []).append(Use(show_path(path), level, varies, values))
    return found


class Resolver:
    """Answers what a parameter is for a tensor; settings are checked and compiled once.

    Args:
        recipe: the recipe.
        kinds: parameter → `float`, `int`, `bool` or `str`; values of parameters that are not named here
            come out as they were written.
        problems: values of the wrong type are added here, and may then not be asked for.

    Raises:
        InputError: a value has the wrong type, and no list of problems was given; all such values are named.
    """

    def __init__(
        self,
        recipe: Recipe,
        kinds: Mapping[str, Kind] | None = None,
        problems: list[InputError] | None = None,
    ) -> None:
        self._recipe, self._kinds = recipe, dict(kinds or {})
        self._chains: dict[tuple[object, ...], _Chain] = {}
        self._matchers: dict[str, Callable[[str], object]] = {}
        if problems is None:
            raise_all(list(self._problems()))
        else:
            problems += self._problems()

    def lookup(
        self,
        key: str,
        *,
        module: Module,
        slice: Slice,  # noqa: A002
        source: Source | None = None,
        part: Part | None = None,
    ) -> Callable[[str, float], Any]:
        """The parameter in one place of the recipe, for every tensor there.

        Args:
            key: the parameter.
            module: where tensors are merged.
            slice: where in the module.
            source: the model, for a value per model; None leaves out the innermost level.
            part: the part of a pipeline that asks.

        Returns:
            A function of the name that filters see (the tensor's name in the model for a value per model, in
            the output for one that all models share) and of where its layer stands in the output slice, see
            `layer_position`. It gives `MISSING` where the parameter is not set.
        """
        chain = self._chain(key, module, slice, source, part)
        constant = chain.constant
        return chain.pick if chain.rules is not None else lambda tensor, t: constant

    def _chain(
        self, key: str, module: Module, slice_: Slice, source: Source | None, part: Part | None
    ) -> _Chain:
        place = (key, id(slice_), id(source), id(module), id(part))
        if place not in self._chains:
            scopes: list[Parameters] = [slice_.parameters, module.parameters]
            if source is not None:
                scopes.insert(0, source.parameters)
            if part is not None:
                scopes.append(part.options)
            scopes.append(self._recipe.parameters)
            settings = [setting for scope in scopes for setting in scope.get(key, ())]
            rules = [self._rule(key, setting) for setting in settings]
            self._chains[place] = _Chain(rules, keep=(module, slice_, source, part))
        return self._chains[place]

    def _rule(self, key: str, setting: Setting) -> _Rule:
        kind = self._kinds.get(key)
        value = setting.value if kind is None else self._coerced(setting, kind)
        test = None if setting.filter is None else self._matcher(setting.filter)
        if isinstance(value, tuple):
            return test, None, _gradient(value, kind, f"`{key}`", self._recipe.origin)
        return test, value, None

    def _coerced(self, setting: Setting, kind: Kind) -> Scalar | tuple[Scalar, ...]:
        grammar = self._recipe.grammar
        if isinstance(setting.value, tuple):
            return tuple(coerce(value, kind, grammar) for value in setting.value)
        return coerce(setting.value, kind, grammar)

    def _matcher(self, pattern: str) -> Callable[[str], object]:
        if pattern not in self._matchers:
            matcher = name_matcher(pattern, self._recipe.grammar)
            glob = self._recipe.grammar != "mergekit"
            self._matchers[pattern] = _Remembered(matcher).__getitem__ if glob else matcher
        return self._matchers[pattern]

    def _problems(self) -> Iterator[InputError]:
        for path, _, setting in settings_with_paths(self._recipe):
            kind = self._kinds.get(str(path[-1]))
            if kind is None:
                continue
            try:
                self._coerced(setting, kind)
            except TypeError as error:
                shown = list(setting.value) if isinstance(setting.value, tuple) else setting.value
                what = f"`{show_path(path)}` is {quote(shown)}, and it must be {error}"
                yield InputError(what, where=self._recipe.origin)


#: A test of the name (None lets all through), a constant, and a function of t in the constant's place.
_Rule = tuple[Callable[[str], object] | None, Any, Callable[[float], Any] | None]


class _Chain:
    """The settings of all levels in one place, innermost first; `rules` is None if the value never varies."""

    __slots__ = ("constant", "keep", "rules")

    def __init__(self, rules: list[_Rule], keep: tuple[object, ...]) -> None:
        self.keep = keep  # their ids are the cache's keys, so they must stay alive
        self.constant: Any = MISSING
        self.rules: list[_Rule] | None = rules
        if not rules or (rules[0][0] is None and rules[0][2] is None):
            self.constant = rules[0][1] if rules else MISSING
            self.rules = None

    def pick(self, tensor: str, t: float) -> Any:
        for test, constant, gradient in self.rules or ():
            if test is None or test(tensor):
                return constant if gradient is None else gradient(t)
        return self.constant


class _Remembered(dict[str, object]):
    """A matcher that looks at each name once: planning asks for every parameter of every model."""

    def __init__(self, matcher: Callable[[str], object]) -> None:
        super().__init__()
        self._matcher = matcher

    def __missing__(self, name: str) -> bool:
        found = self[name] = self._matcher(name) is not None
        return found


def _gradient(
    values: tuple[Scalar, ...], kind: Kind | None, shown: str, origin: str | None
) -> Callable[[float], Any]:
    if kind is not int:
        return cache(lambda t: interpolate(values, t))

    def whole(t: float) -> int:
        found = float(interpolate(values, t))
        if abs(found - round(found)) > 1e-9:
            what = f"the gradient {list(values)} of {shown} gives {found}, and it must be a whole number"
            raise InputError(what, where=origin)
        return round(found)

    return cache(whole)

"""A recipe's method and its options, for every tensor."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from plait.engine._function import as_method
from plait.engine._matrix import as_matrices
from plait.errors import InputError, nearest, noted, raise_all
from plait.methods import CONSENSUS, SPARSIFY, Method, Option, Settings, get_method, pipeline
from plait.recipe import MISSING, Module, Part, Recipe, Resolver, Slice, Source, used_keys

#: Parameters of mergekit that are about how it computes.
_NO_EFFECT = {"int8_mask": "no mask is ever kept"}
#: Tensor's name, where its layer stands → an option's value.
Lookup = Callable[[str, float], Any]
_TYPES: dict[str, type] = {"float": float, "int": int, "bool": bool, "str": str}


@dataclass
class Options:
    """Resolves a recipe's options for its method.

    Attributes:
        recipe: the recipe.
        method: its method.
        warnings: parameters that mergekit's grammar ignores.
        problems: what is wrong with the options in any place of the recipe, as far as no tensor has a say.
    """

    recipe: Recipe
    method: Method
    owners: dict[str, tuple[str, Part]]
    warnings: list[str] = field(default_factory=list)
    problems: list[InputError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._check_keys()
        kinds = {self._key(o): _TYPES[o.kind] for o in self.method.options if o.name != "rescale"}
        self._resolver = Resolver(self.recipe, kinds, self.problems)
        # What no filter and no gradient touches is the same for all tensors, of which there may be very many.
        self._varying = {key for key, uses in used_keys(self.recipe).items() if any(u.varies for u in uses)}
        self._check_values()

    def _key(self, option: Option) -> str:
        return self.owners[option.name][0] if option.name in self.owners else option.name

    def _check_keys(self) -> None:
        known = {self._key(option) for option in self.method.options}
        problems = self.problems
        for key, uses in used_keys(self.recipe).items():
            if key in _NO_EFFECT and self.recipe.grammar == "mergekit":
                self.warnings.append(f"`{uses[0].path}` has no effect: {_NO_EFFECT[key]}")
            elif key not in known:
                text = f"the method `{self.method.name}` has no option `{key}` (`{{}}`)"
                if self.recipe.grammar == "mergekit":
                    self.warnings.append(f"{text.format(uses[0].path)}; it is ignored")
                else:
                    told = [text.format(use.path) for use in uses]
                    hint = nearest(key, known)
                    problems += [InputError(what, where=self.recipe.origin, hint=hint) for what in told]

    def _check_values(self) -> None:
        """Look at every value that is the same for all tensors of a place."""
        for module in self.recipe.modules:
            for part in module.slices:
                base = None if self.method.base == "unused" else part.base or self.recipe.base
                sources = [source for source in part.sources if base is None or source.model != base]
                for option in self.method.options:
                    if self.varies(option):
                        continue
                    for source in sources if option.per_model else [None]:
                        # what has the wrong type was told when the resolver was made
                        with noted(self.problems), contextlib.suppress(TypeError):
                            self.lookup(option, (module, part), source)("", 0.0)

    def at(self, module: Module, part: Slice, sources: Sequence[Source]) -> OptionsAt:
        """The options in one place of the recipe: what is the same for all its tensors is resolved here.

        Args:
            module: the module.
            part: its slice.
            sources: the models' sources.

        Raises:
            InputError: an option is out of bounds or missing.
        """
        return OptionsAt(self, module, part, sources)

    def lookup(self, option: Option, place: tuple[Module, Slice], source: Source | None) -> Lookup:
        """The checked value of an option, of a tensor's name and where its layer stands."""
        module, part = place
        owner = self.owners.get(option.name, (None, None))[1]
        key = self._key(option)
        found = self._resolver.lookup(key, module=module, slice=part, source=source, part=owner)

        def value(tensor: str, t: float) -> Any:
            given = found(tensor, t)
            if given is MISSING:
                if option.needed and self.recipe.grammar == "mergekit":
                    raise self._unset(option, tensor, source)
                given = option.default_for(self.recipe.conventions)
            return self._checked(option, given)

        return value

    @property
    def uniform(self) -> bool:
        """Whether all tensors of a place have the same options."""
        return not self._varying

    def varies(self, option: Option) -> bool:
        """Whether a filter or a gradient touches it: then it is looked up for every tensor."""
        return self._key(option) in self._varying

    def _unset(self, option: Option, tensor: str, source: Source | None) -> InputError:
        place = "" if source is None else f" of `{source.model.text}`"
        partly = option.name in used_keys(self.recipe)
        shown = f" for the tensor `{tensor}`" if partly and tensor else ""
        return InputError(
            f"the recipe sets no `{option.name}`{place}{shown}",
            where=self.recipe.origin,
            hint=f"set `{option.name}` under the model's `parameters`, or under the recipe's for all models",
        )

    def _checked(self, option: Option, value: Any) -> Any:
        if option.name == "rescale" and isinstance(value, bool):
            on = "l1" if self.recipe.conventions == "mergekit" else "probability"
            return on if value else "none"
        if value is None and not option.optional:
            raise InputError(
                f"the method `{self.method.name}` needs `{option.name}`: {option.doc}",
                where=self.recipe.origin,
            )
        if option.choices and value not in option.choices:
            words = ", ".join(option.choices)
            what = f"`{option.name}` is `{value}`, and it must be one of {words}"
            raise InputError(what, where=self._where(option, value))
        if value is None or option.kind in ("str", "bool"):
            return value
        low, high = option.low, option.high
        if (
            (low is not None and value < low)
            or (high is not None and value > high)
            or math.isnan(value if isinstance(value, float) else 0.0)
        ):
            bounds = f"from {low}" if high is None else f"between {low} and {high}"
            what = f"`{option.name}` is {value}, and it must be {bounds}"
            raise InputError(what, where=self._where(option, value))
        return value

    def _where(self, option: Option, value: Any) -> str | None:
        """The recipe, and where in it this value is written."""
        uses = used_keys(self.recipe).get(self._key(option), ())
        words = ", ".join(dict.fromkeys(f"`{use.path}`" for use in uses if value in use.values))
        return f"{self.recipe.origin or 'the recipe'}: {words}" if words else self.recipe.origin


class OptionsAt:
    """The options of the tensors in one place of a recipe.

    There may be very many of them: only what a filter or a gradient touches is looked up for each.
    """

    def __init__(self, options: Options, module: Module, part: Slice, sources: Sequence[Source]) -> None:
        self._shared: dict[str, Any] = {}
        self._each: dict[str, tuple[Any, ...]] = {}
        self._varying: list[tuple[str, Lookup]] = []
        self._varying_each: list[tuple[str, list[Lookup]]] = []
        self._models, self._matrix = len(sources), options.method.matrix
        place = module, part
        for option in options.method.options:
            lookups = [options.lookup(option, place, s) for s in (sources if option.per_model else [None])]
            varies = options.varies(option)
            if option.per_model:
                self._each[option.name] = () if varies else tuple(lookup("", 0.0) for lookup in lookups)
                self._varying_each += [(option.name, lookups)] if varies else []
            else:
                self._shared[option.name] = None if varies else lookups[0]("", 0.0)
                self._varying += [(option.name, lookups[0])] if varies else []

    def settings(self, output: str, inputs: Sequence[str], t: float, shape: tuple[int, ...]) -> Settings:
        """The options of one tensor.

        Args:
            output: its name in the output.
            inputs: its name in each model.
            t: where its layer stands.
            shape: its shape.

        Raises:
            InputError: an option is out of bounds or missing.
        """
        shared, each = self._shared, self._each
        if self._varying:
            shared = {**shared, **{name: lookup(output, t) for name, lookup in self._varying}}
        if self._varying_each:
            pairs = ((name, zip(lookups, inputs, strict=True)) for name, lookups in self._varying_each)
            each = {**each, **{name: tuple(look(own, t) for look, own in both) for name, both in pairs}}
        numel = 1
        for size in shape:
            numel *= size
        found = Settings(shared, each, self._models, numel, shape)
        if self._matrix is None or (matrices := as_matrices(output, shape)) is None:
            return found
        seen = replace(found, matrices=matrices)
        return seen if self._matrix.applies(seen) else found


def options_of(recipe: Recipe) -> Options:
    """The recipe's method and the resolver of its options.

    Raises:
        InputError: there is no such method or part; what is wrong with its options is in its `problems`.
    """
    owners: dict[str, tuple[str, Part]] = {}
    if isinstance(recipe.method, str):
        method = get_method(recipe.method, where=recipe.origin)
    elif isinstance(recipe.method, tuple):
        method, owners = _composed(recipe.method, recipe.origin)
    else:
        method = as_method(recipe.method)
    return Options(recipe, method, owners)


def _composed(parts: Sequence[Part], where: str | None) -> tuple[Method, dict[str, tuple[str, Part]]]:
    tables = {"sparsify": SPARSIFY, "consensus": CONSENSUS, "scale": ["constant"], "space": ["identity"]}
    raise_all(
        [
            InputError(
                f"there is no {part.kind} part `{part.name}`",
                where=where,
                hint=nearest(part.name, tables[part.kind]),
            )
            for part in parts
            if part.name not in tables[part.kind]
        ]
    )
    chosen: dict[str, Any] = {}
    owners: dict[str, tuple[str, Part]] = {}
    for part in parts:
        if part.kind == "scale":
            owners["lambda"] = ("factor", part)
        elif part.kind != "space":
            chosen[part.kind] = (SPARSIFY if part.kind == "sparsify" else CONSENSUS)[part.name]
            owners.update({option.name: (option.name, part) for option in chosen[part.kind].options})
    return pipeline(**chosen), owners

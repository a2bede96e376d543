"""Slices with layer ranges: layers of several models on top of each other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from plait.engine._models import Models, Owns, Place, place
from plait.errors import InputError
from plait.recipe import ModelRef, Module, Recipe, Slice, layer_position, recipe_models

#: What comes before the layers: embeddings, a vision tower's stem, a norm in front.
_BEFORE = re.compile(r"emb|wte|wpe|patch|conv|stem|ln_pre|pre_?l")


@dataclass(frozen=True)
class StackedLayers:
    """How the layers of one stack of the output follow from the models'.

    Attributes:
        prefix: what their names begin with.
        before: layers of this stack in the model whose config the output takes.
        layers: for each output layer the one of the first source that it began as.
    """

    prefix: str
    before: int
    layers: tuple[int, ...]


@dataclass
class Stacking:
    """A module whose slices name ranges of layers.

    Attributes:
        recipe: the recipe.
        models: its models.
        module: the module.
        owns: which names belong to it.
        problems: what is wrong is added here.
    """

    recipe: Recipe
    models: Models
    module: Module
    owns: Owns
    problems: list[InputError]

    def places(self) -> Iterator[Place | None]:
        """What comes before the layers, the layers, the rest."""
        self.problems += self._wrong
        if self._wrong:
            return
        yield from self._outside(self.module.slices[0], before=True)
        start = 0
        for part in self.module.slices:
            ranges = [source.layer_range or (0, 0) for source in part.sources]
            count = ranges[0][1] - ranges[0][0]
            for step in range(count):
                layers = [low + step for low, _ in ranges]
                yield from self._layer(part, layers, start + step, layer_position(step, count))
            start += count
        yield from self._outside(self.module.slices[-1], before=False)

    def layers(self, template: ModelRef) -> StackedLayers | None:
        """The module's output layers; None without any, or where a range is not one of its model's."""
        if self._wrong:
            return None
        prefix = self._stacks.get(self.module.slices[0].sources[0].model)
        ranges = [part.sources[0].layer_range or (0, 0) for part in self.module.slices]
        if prefix is None:
            return None
        before = self.models.layers[template].count(prefix)
        return StackedLayers(prefix, before, tuple(n for low, high in ranges for n in range(low, high)))

    @cached_property
    def _stacks(self) -> dict[ModelRef, str | None]:
        """Each model's layers that lie in this module, by their prefix."""
        return {ref: self.models.stack(ref, self.owns) for ref in self.models.opened}

    @cached_property
    def _wrong(self) -> list[InputError]:
        """What is wrong with the ranges."""
        return [problem for part in self.module.slices for problem in self._range_problems(part)]

    def _base(self, part: Slice) -> ModelRef | None:
        return part.base or self.recipe.base

    def _range_problems(self, part: Slice) -> Iterator[InputError]:
        lengths = set()
        for source in part.sources:
            text = source.model.text
            if source.layer_range is None:
                yield InputError("a slice needs a `layer_range` in each of its sources", where=text)
                continue
            low, high = source.layer_range
            lengths.add(high - low)
            stack = self._stacks[source.model]
            count = 0 if stack is None else self.models.layers[source.model].count(stack)
            if high > count:
                shown = f"`layer_range: [{low}, {high}]` goes beyond the model's {count} layers"
                yield InputError(shown, where=text)
        if len(lengths) > 1:
            yield InputError(
                f"the sources of a slice have different numbers of layers: {sorted(lengths)}",
                where=", ".join(source.model.text for source in part.sources),
            )

    def _layer(self, part: Slice, numbers: Sequence[int], output: int, t: float) -> Iterator[Place | None]:
        """One output layer: every tensor that any of the sources has in its own layer."""
        lead, base = part.sources[0].model, self._base(part)
        layers = self.models.layers[lead]
        names: dict[str, None] = {}
        for source, number in zip(part.sources, numbers, strict=True):
            stack = self._stacks[source.model] or ""
            for name in self.models.layer_names(source.model, stack, number):
                if self.owns(name):
                    names[layers.rename(name, output)] = None
        for name in names:
            own = [layers.rename(name, number) for number in numbers]
            at = next((n for s, n in zip(part.sources, own, strict=True) if s.model == base), own[0])
            yield place(self.models, self.module, part, (name, t, base), own, at, self.problems)

    def _outside(self, part: Slice, *, before: bool) -> Iterator[Place | None]:
        """What lies outside: what comes before the layers goes with the first slice, the rest with the last.

        Every model's names count, so that a head is there though the last slice's model ties it.
        """
        base = self._base(part)
        for name in self.models.union(recipe_models(self.recipe), self.owns):
            if self._in_layers(name):
                continue
            if bool(_BEFORE.search(name.lower())) == before:
                names, output = [name] * len(part.sources), (name, 0.0, base)
                yield place(self.models, self.module, part, output, names, name, self.problems)

    def _in_layers(self, name: str) -> bool:
        lead = self.module.slices[0].sources[0].model
        found = self.models.layers[lead].layer_of(name)
        return found is not None and found[0] == self._stacks[lead]

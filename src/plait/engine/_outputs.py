"""How each output tensor is made: its inputs, its type, the method's options; or what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from plait.checkpoint import Checkpoint, LazyTensor, find_embeddings
from plait.engine._align import matching
from plait.engine._models import Place
from plait.engine._plan import Output
from plait.engine._settings import Options, OptionsAt
from plait.errors import InputError
from plait.recipe import ModelRef, Recipe


class _Role(NamedTuple):
    """What is the same for all tensors of floats in one slice.

    Attributes:
        chosen: which of the slice's sources are merged, in order: not the base.
        models: whose the inputs are, the base's first.
        options: the method's.
    """

    chosen: list[int]
    models: tuple[str, ...]
    options: OptionsAt


class OutputBuilder:
    """Makes outputs of places, collecting problems."""

    def __init__(
        self,
        recipe: Recipe,
        options: Options,
        opened: Mapping[ModelRef, Checkpoint],
        problems: list[InputError],
    ) -> None:
        self.recipe, self.options, self.opened, self.problems = recipe, options, opened, problems
        self.method = options.method
        self.wide = False
        name = recipe.out_dtype or recipe.dtype
        self.dtype = getattr(torch, name) if name else None
        self.embeddings = {ref: find_embeddings(c, c.config) for ref, c in opened.items()}
        self._roles: dict[tuple[int, str | None], _Role] = {}
        self._said: set[str] = set()
        self._keeps = matching(recipe.keep)
        self.copied_complex: list[str] = []

    @property
    def uniform(self) -> bool:
        """Whether all tensors are made of the same models with the same options."""
        return len(self._roles) <= 1 and self.options.uniform

    def outputs(self, place: Place) -> list[Output]:
        base_ref = place.slice.base or self.recipe.base
        given = [(source.model.text, tensor) for source, tensor in place.inputs]
        if place.base is not None and base_ref is not None:
            given.insert(0, (base_ref.text, place.base))
        lead_name, lead = given[0]
        if self._keeps(place.name):
            return [Output(place.name, lead.shape, lead.dtype, "copy", (lead,), (lead_name,), False, None)]
        if not self._alike(place, given) or self.options.problems:
            return []
        if lead.dtype.is_complex and len(given) > 1:
            self.copied_complex.append(place.name)
        if not lead.dtype.is_floating_point:
            return [Output(place.name, lead.shape, lead.dtype, "copy", (lead,), (lead_name,), False, None)]
        base = place.base if self.method.base != "unused" else None
        try:
            role = self._role(place, base_ref if base is not None else None)
            own = [place.names[i] for i in role.chosen]
            settings = role.options.settings(place.name, own, place.t, lead.shape)
            wrong = self.method.check(settings)
            if wrong:
                raise InputError(wrong, where=f"tensor `{place.name}`")
        except InputError as error:
            self._say(error)
            return []
        inputs = [place.inputs[i][1] for i in role.chosen]
        if base is not None:
            inputs.insert(0, base)
        if not self.wide:
            self.wide = torch.float64 in [t.dtype for t in inputs]
        dtype = self.dtype or lead.dtype
        return [
            Output(
                place.name,
                lead.shape,
                dtype,
                "merge",
                tuple(inputs),
                role.models,
                base is not None,
                settings,
            )
        ]

    def _role(self, place: Place, base: ModelRef | None) -> _Role:
        key = id(place.slice), None if base is None else base.text
        if key not in self._roles:
            kept = [i for i, (source, _) in enumerate(place.inputs) if base is None or source.model != base]
            if self.method.symmetric:
                kept.sort(key=lambda i: self.recipe.identity(place.inputs[i][0].model.text))
            sources = [place.inputs[i][0] for i in kept]
            names = [*([] if base is None else [base.text]), *(source.model.text for source in sources)]
            options = self.options.at(place.module, place.slice, sources)
            self._roles[key] = _Role(kept, tuple(names), options)
        return self._roles[key]

    def _alike(self, place: Place, given: Sequence[tuple[str, LazyTensor]]) -> bool:
        """Whether all have one shape, and none is of integers where others are not; else a problem."""
        shape, floating = given[0][1].shape, given[0][1].dtype.is_floating_point
        for _, tensor in given:  # plain, as it is done for every tensor
            if tensor.shape != shape or tensor.dtype.is_floating_point != floating:
                break
        else:
            return True
        if all(t.shape == shape for _, t in given):
            word, told = "types", {m: f"{m} has {str(t.dtype).removeprefix('torch.')}" for m, t in given}
        else:
            word, told = "shapes", {m: f"{m} has {list(t.shape)}" for m, t in given}
        vocabulary = any(place.name in found for found in self.embeddings.values())
        hint = (
            "the models' vocabularies differ: add `tokenizer: {source: union}` to the recipe"
            if vocabulary and word == "shapes"
            else f"merge models of one architecture, or leave it out with `exclude: [{place.name}]`"
        )
        text = f"the tensor `{place.name}` has different {word}: {', '.join(told.values())}"
        self.problems.append(InputError(text, hint=hint))
        return False

    def _say(self, error: InputError) -> None:
        if error.what not in self._said:  # the first tensor stands for all that have this problem
            self._said.add(error.what)
            self.problems.append(error)

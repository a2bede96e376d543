"""Which tensors of which models make each output tensor: by name, by layer, with tied weights resolved.

Every tensor of every model ends in the output, is excluded by name, or is reported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate

from plait.checkpoint import Checkpoint, LayerMap, LazyTensor, find_layers, find_tied
from plait.errors import InputError
from plait.recipe import ModelRef, Module, Recipe, Slice, Source, layer_position


@dataclass(frozen=True)
class Place:
    """One output tensor.

    Attributes:
        name: its name in the output.
        module: where the recipe merges it.
        slice: where in the module.
        t: where its layer stands in the slice, 0 to 1.
        inputs: source → the tensor it gives; of a buffer of integers, those that are there.
        base: the base's tensor, where there is a base.
    """

    name: str
    module: Module
    slice: Slice
    t: float
    inputs: tuple[tuple[Source, LazyTensor], ...]
    base: LazyTensor | None


class Models:
    """The opened models of a recipe, with their layers and tied weights.

    Args:
        opened: model → checkpoint.
    """

    def __init__(self, opened: Mapping[ModelRef, Checkpoint]) -> None:
        self.opened = opened
        self._by_layer: dict[ModelRef, dict[int, list[str]]] = {}
        # Models of one architecture have the same names: their layers are found once.
        known: dict[tuple[str, ...], LayerMap] = {}
        self.layers: dict[ModelRef, LayerMap] = {}
        for ref, checkpoint in opened.items():
            names = tuple(checkpoint)
            if names not in known:
                known[names] = find_layers(names, checkpoint.config)
            self.layers[ref] = known[names]
        self.tied = {
            ref: find_tied(checkpoint, [c for c in opened.values() if c is not checkpoint])
            for ref, checkpoint in opened.items()
        }

    def get(self, ref: ModelRef, name: str) -> LazyTensor | None:
        """The model's tensor of this name, the stored one where it is tied; None if it has none."""
        checkpoint = self.opened[ref]
        found = checkpoint.tensors.get(name)
        if found is None and name in self.tied[ref]:
            found = checkpoint.tensors.get(self.tied[ref][name])
        return found

    def layer_names(self, ref: ModelRef, index: int) -> list[str]:
        """The names in one layer of the model's main stack."""
        if ref not in self._by_layer:
            layers, found = self.layers[ref], {}
            for name in self.opened[ref]:
                place = layers.layer_of(name)
                if place is not None and place[0] == layers.main:
                    found.setdefault(place[1], []).append(name)
            self._by_layer[ref] = found
        return self._by_layer[ref].get(index, [])


def excluder(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a name matches one of the globs."""
    if not patterns:
        return lambda name: False
    joined = re.compile("|".join(translate(pattern) for pattern in patterns))
    return lambda name: joined.match(name) is not None


def places(
    recipe: Recipe, models: Models, problems: list[InputError], excluded: list[str]
) -> Iterator[Place]:
    """The output's tensors, in the order of the first model that has them.

    Args:
        recipe: the recipe.
        models: its models.
        problems: what is wrong is added here.
        excluded: names left out are added here.
    """
    leave_out = excluder(recipe.exclude)
    for module, owns in _owners(recipe, models, problems):
        stacked = any(source.layer_range for part in module.slices for source in part.sources)
        if stacked:
            found = _stacked(recipe, models, module, owns, problems)
        else:
            # Here names are those of the output: one that is left out need not be in every model.
            names = _union(models, list(models.opened), owns)
            out = {name for name in names if leave_out(name)}
            excluded += [name for name in names if name in out]
            kept = (lambda name, owns=owns, out=out: owns(name) and name not in out) if out else owns
            found = _whole(recipe, models, module, kept, problems)
        for place in found:
            if leave_out(place.name):
                excluded.append(place.name)
            else:
                yield place


def _owners(
    recipe: Recipe, models: Models, problems: list[InputError]
) -> Iterator[tuple[Module, Callable[[str], bool]]]:
    """Each module with the names that are its own: those that begin with its name, or the rest."""
    named = [m.name for m in recipe.modules if m.name not in (None, "default")]
    for module in recipe.modules:
        if module.name in (None, "default"):
            prefixes = tuple(f"{n}." for n in named)
            yield module, lambda name, p=prefixes: not name.startswith(p)
            continue
        prefix = f"{module.name}."
        if not any(name.startswith(prefix) for c in models.opened.values() for name in c):
            tops = sorted({n.split(".")[0] for c in models.opened.values() for n in c})
            problems.append(
                InputError(
                    f"no model has tensors of a module `{module.name}`",
                    hint=f"names begin with: {', '.join(tops)}",
                )
            )
        yield module, lambda name, p=prefix: name.startswith(p)


def _base_of(recipe: Recipe, part: Slice) -> ModelRef | None:
    return part.base or recipe.base


def _union(models: Models, refs: Sequence[ModelRef], owns: Callable[[str], bool]) -> list[str]:
    names: dict[str, None] = {}
    for ref in refs:
        names.update(dict.fromkeys(filter(owns, models.opened[ref])))
    return list(names)


def _whole(
    recipe: Recipe, models: Models, module: Module, owns: Callable[[str], bool], problems: list[InputError]
) -> Iterator[Place]:
    if len(module.slices) != 1:
        problems.append(
            InputError(
                "several slices need a `layer_range` in each source", where=recipe.origin or module.name
            )
        )
        return
    part = module.slices[0]
    base = _base_of(recipe, part)
    refs = list(dict.fromkeys(([base] if base else []) + [s.model for s in part.sources]))
    layers = models.layers[refs[0]]
    for name in _union(models, refs, owns):
        place = layers.layer_of(name)
        t = 0.0 if place is None else layer_position(place[1], layers.count(place[0]))
        yield from _place(models, module, part, (name, t, base), [name] * len(part.sources), name, problems)


def _place(
    models: Models,
    module: Module,
    part: Slice,
    output: tuple[str, float, ModelRef | None],
    names: Sequence[str],
    base_name: str,
    problems: list[InputError],
) -> Iterator[Place]:
    """The place, or a problem that names who lacks the tensor."""
    name, t, base = output
    found = [models.get(source.model, own) for source, own in zip(part.sources, names, strict=True)]
    missing = [s.model.text for s, tensor in zip(part.sources, found, strict=True) if tensor is None]
    base_tensor = models.get(base, base_name) if base is not None else None
    if base is not None and base_tensor is None:
        missing.insert(0, base.text)
    pairs = tuple((s, tensor) for s, tensor in zip(part.sources, found, strict=True) if tensor is not None)
    there = [*(tensor for _, tensor in pairs), *((base_tensor,) if base_tensor is not None else ())]
    # A buffer of integers is copied from whoever has it first; libraries store some in one version only.
    if missing and any(tensor.dtype.is_floating_point for tensor in there):
        problems.append(
            InputError(
                f"the tensor `{name}` is missing here, and other models have it",
                where=", ".join(dict.fromkeys(missing)),
                hint=f"leave it out with `exclude: [{name}]`, or merge models of one architecture",
            )
        )
        return
    yield Place(name, module, part, t, pairs, base_tensor)


def _stacked(
    recipe: Recipe, models: Models, module: Module, owns: Callable[[str], bool], problems: list[InputError]
) -> Iterator[Place]:
    start = 0
    wrong = len(problems)
    for part in module.slices:
        problems += _range_problems(models, part)
    if len(problems) > wrong:
        return
    first, last = module.slices[0], module.slices[-1]
    yield from _outside(recipe, models, module, first, owns, problems, embeddings=True)
    for part in module.slices:
        ranges = [source.layer_range or (0, 0) for source in part.sources]
        count = ranges[0][1] - ranges[0][0]
        for step in range(count):
            layer = [low + step for low, _ in ranges]
            yield from _layer(recipe, models, module, part, layer, start + step, step, count, owns, problems)
        start += count
    yield from _outside(recipe, models, module, last, owns, problems, embeddings=False)


def _range_problems(models: Models, part: Slice) -> Iterator[InputError]:
    lengths = set()
    for source in part.sources:
        layers = models.layers[source.model]
        if source.layer_range is None:
            yield InputError("a slice needs a `layer_range` in each of its sources", where=source.model.text)
            continue
        low, high = source.layer_range
        lengths.add(high - low)
        if layers.main is None or high > layers.count():
            yield InputError(
                f"`layer_range: [{low}, {high}]` goes beyond the model's {layers.count()} layers",
                where=source.model.text,
            )
    if len(lengths) > 1:
        yield InputError(
            f"the sources of a slice have different numbers of layers: {sorted(lengths)}",
            where=", ".join(source.model.text for source in part.sources),
        )


def _layer(
    recipe: Recipe,
    models: Models,
    module: Module,
    part: Slice,
    layer: Sequence[int],
    output: int,
    step: int,
    count: int,
    owns: Callable[[str], bool],
    problems: list[InputError],
) -> Iterator[Place]:
    lead = part.sources[0]
    layers = models.layers[lead.model]
    base = _base_of(recipe, part)
    for own in models.layer_names(lead.model, layer[0]):
        if not owns(own):
            continue
        names = [layers.rename(own, index) for index in layer]
        at = next((n for s, n in zip(part.sources, names, strict=True) if s.model == base), names[0])
        out = layers.rename(own, output), layer_position(step, count), base
        yield from _place(models, module, part, out, names, at, problems)


def _outside(
    recipe: Recipe,
    models: Models,
    module: Module,
    part: Slice,
    owns: Callable[[str], bool],
    problems: list[InputError],
    *,
    embeddings: bool,
) -> Iterator[Place]:
    """What lies outside of the main stack: embeddings go with the first slice, the rest with the last."""
    base = _base_of(recipe, part)
    refs = list(dict.fromkeys(([base] if base else []) + [s.model for s in part.sources]))
    for name in _union(models, refs, owns):
        main = models.layers[refs[0]].layer_of(name)
        if main is not None and main[0] == models.layers[refs[0]].main:
            continue
        leaf = name.lower()
        is_embedding = "emb" in leaf or "wte" in leaf or "wpe" in leaf
        if is_embedding == embeddings:
            yield from _place(
                models, module, part, (name, 0.0, base), [name] * len(part.sources), name, problems
            )

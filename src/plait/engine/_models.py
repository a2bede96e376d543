"""The opened models of a recipe: their layers, what is tied in them, what they give to the output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from plait.checkpoint import Checkpoint, LayerMap, LazyTensor, find_layers, find_tied
from plait.errors import InputError
from plait.recipe import ModelRef, Module, Slice, Source

#: Whether a name belongs to a module.
Owns = Callable[[str], bool]
#: A tensor by its name.
Finder = Callable[[str], LazyTensor | None]
#: Model → alias → the tensor that stands for it.
Ties = Mapping[ModelRef, Mapping[str, LazyTensor]]


@dataclass(frozen=True)
class Place:
    """One output tensor.

    Attributes:
        name: its name in the output.
        module: where the recipe merges it.
        slice: where in the module.
        t: where its layer stands in the slice, 0 to 1.
        inputs: source → the tensor it gives; of one that is copied, those that are there.
        names: what each source calls it: for a tied head the head's name, not that of the tensor it shares.
        base: the base's tensor, where there is a base.
    """

    name: str
    module: Module
    slice: Slice
    t: float
    inputs: tuple[tuple[Source, LazyTensor], ...]
    names: tuple[str, ...]
    base: LazyTensor | None


class Models:
    """The opened models of a recipe, with their layers and tied weights.

    Args:
        opened: model → checkpoint.
        tied: what is tied in them.
        keeps: whether a tensor is copied, not merged.
    """

    def __init__(
        self,
        opened: Mapping[ModelRef, Checkpoint],
        tied: Ties,
        keeps: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self.opened, self.tied, self.keeps = opened, tied, keeps
        self._tensors = {ref: (checkpoint.tensors, tied[ref]) for ref, checkpoint in opened.items()}
        self._finders: dict[tuple[int, int], tuple[list[Finder], Finder | None]] = {}
        self._by_layer: dict[tuple[ModelRef, str], dict[int, list[str]]] = {}
        # Models of one architecture have the same names: their layers are found once.
        known: dict[tuple[str, ...], LayerMap] = {}
        self.layers: dict[ModelRef, LayerMap] = {}
        for ref, checkpoint in opened.items():
            names = tuple(checkpoint)
            if names not in known:
                known[names] = find_layers(names, checkpoint.config)
            self.layers[ref] = known[names]

    def finder(self, ref: ModelRef) -> Finder:
        """Gives a model's tensor of a name, the stored one where it is tied; None if it has none."""
        tensors, tied = self._tensors[ref]
        return (lambda name: tensors.get(name) or tied.get(name)) if tied else tensors.get

    def finders(self, part: Slice, base: ModelRef | None) -> tuple[list[Finder], Finder | None]:
        """Those of a slice's sources, and of the base; made once, as they are asked for every tensor."""
        key = id(part), id(base)
        if key not in self._finders:
            sources = [self.finder(source.model) for source in part.sources]
            self._finders[key] = sources, None if base is None else self.finder(base)
        return self._finders[key]

    def union(self, refs: Sequence[ModelRef], owns: Owns) -> list[str]:
        """The names in any of the models, in the order of the first that has them."""
        names: dict[str, None] = {}
        for ref in refs:
            names.update(dict.fromkeys(filter(owns, self.opened[ref])))
        return list(names)

    def stack(self, ref: ModelRef, owns: Owns) -> str | None:
        """The prefix of the layers in a module: the model's main stack, or the longest that lies there."""
        layers = self.layers[ref]
        inside = [p for p in layers.stacks if any(n.startswith(p) and owns(n) for n in self.opened[ref])]
        if layers.main in inside:
            return layers.main
        return max(inside, key=lambda prefix: layers.stacks[prefix], default=None)

    def layer_names(self, ref: ModelRef, stack: str, index: int) -> list[str]:
        """The names in one layer of one of the model's stacks."""
        if (ref, stack) not in self._by_layer:
            layers, found = self.layers[ref], {}
            for name in self.opened[ref]:
                place = layers.layer_of(name)
                if place is not None and place[0] == stack:
                    found.setdefault(place[1], []).append(name)
            self._by_layer[ref, stack] = found
        return self._by_layer[ref, stack].get(index, [])


def _told(models: Sequence[str]) -> str:
    """Who has a tensor: a few of the models."""
    names = list(dict.fromkeys(models))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"`{name}`" for name in names[:3]) + more + (" have" if len(names) > 1 else " has")


def find_ties(opened: Mapping[ModelRef, Checkpoint]) -> dict[ModelRef, dict[str, LazyTensor]]:
    """What each model does not store because another of its tensors stands for it."""
    found = {}
    for ref, checkpoint in opened.items():
        names = find_tied(checkpoint, [other for other in opened.values() if other is not checkpoint])
        found[ref] = {alias: checkpoint[name] for alias, name in names.items() if name in checkpoint}
    return found


def place(
    models: Models,
    module: Module,
    part: Slice,
    output: tuple[str, float, ModelRef | None],
    names: Sequence[str],
    base_name: str,
    problems: list[InputError],
) -> Place | None:
    """The place of an output tensor; None and a problem that names who lacks it if it can't be merged.

    Args:
        models: the models.
        module: where in the recipe.
        part: where in the module.
        output: its name, where its layer stands, the base.
        names: what each of the slice's sources calls it.
        base_name: what the base calls it.
        problems: what is wrong is added here.
    """
    name, t, base = output
    finders, of_base = models.finders(part, base)
    found = [find(own) for find, own in zip(finders, names, strict=True)]
    base_tensor = None if of_base is None else of_base(base_name)
    if None not in found and (base is None or base_tensor is not None):
        pairs = tuple(
            (s, tensor) for s, tensor in zip(part.sources, found, strict=True) if tensor is not None
        )
        return Place(name, module, part, t, pairs, tuple(names), base_tensor)
    missing = [s.model.text for s, tensor in zip(part.sources, found, strict=True) if tensor is None]
    if base is not None and base_tensor is None:
        missing.insert(0, base.text)
    having = [s.model.text for s, tensor in zip(part.sources, found, strict=True) if tensor is not None]
    if base is not None and base_tensor is not None:
        having.insert(0, base.text)
    there = [tensor for tensor in (*found, base_tensor) if tensor is not None]
    # A buffer of integers is copied from whoever has it first; libraries store some in one version only.
    if any(tensor.dtype.is_floating_point for tensor in there) and not models.keeps(name):
        problems.append(
            InputError(
                f"the tensor `{name}` is missing here, and {_told(having)} it",
                where=", ".join(dict.fromkeys(missing)),
                hint=f"leave it out with `exclude: [{name}]`, or merge models of one architecture",
            )
        )
        return None
    whole = zip(part.sources, names, found, strict=True)
    given = [(source, own, tensor) for source, own, tensor in whole if tensor is not None]
    pairs = tuple((source, tensor) for source, _, tensor in given)
    return Place(name, module, part, t, pairs, tuple(own for _, own, _ in given), base_tensor)

"""What a model's names, shapes and config say about its build: stacks of layers, without a table of models.

A stack is a prefix that is followed by 0, 1, 2, … without a gap, where every number is followed by at least
one same dotted name: `model.layers.{0,1,2}.input_layernorm.weight`. Numbers inside a layer (experts,
sub-layers) are parts of that layer.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

#: How configs call the number of layers, in the order in which they decide about the main stack.
_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "num_decoder_layers")
_NUMBER = re.compile(r"(?:^|(?<=\.))(?:0|[1-9][0-9]{0,8})(?=\.)")
#: Sub-configs whose layers are the model's trunk come before towers for other inputs.
_TRUNK = re.compile(r"text|llm|language|thinker|decoder")


@dataclass(frozen=True)
class LayerMap:
    """The stacks of layers of one model.

    Attributes:
        stacks: prefix with its final dot (`model.layers.`) → number of layers.
        main: the prefix of the stack that the config's layer count means, or the largest; None without any.
    """

    stacks: Mapping[str, int] = field(default_factory=dict)
    main: str | None = None

    def layer_of(self, name: str) -> tuple[str, int] | None:
        """The stack's prefix and the layer's index that a tensor lies in; None outside of every stack."""
        for number in _NUMBER.finditer(name):
            if name[: number.start()] in self.stacks:
                return name[: number.start()], int(number[0])
        return None

    def count(self, prefix: str | None = None) -> int:
        """The number of layers of a stack (the main one if none is named); 0 where there is none."""
        prefix = self.main if prefix is None else prefix
        return 0 if prefix is None else self.stacks.get(prefix, 0)

    def rename(self, name: str, index: int) -> str:
        """The name that the tensor has in layer `index` of its stack; itself outside of every stack."""
        found = self.layer_of(name)
        if found is None:
            return name
        prefix, old = found
        return f"{prefix}{index}{name[len(prefix) + len(str(old)) :]}"


@dataclass
class _Candidate:
    indices: set[int] = field(default_factory=set)
    suffixes: Counter[str] = field(default_factory=Counter)

    def repeats(self) -> bool:
        layers = len(self.indices)
        contiguous = layers > 1 and max(self.indices) == layers - 1
        return contiguous and any(n == layers and "." in suffix for suffix, n in self.suffixes.items())

    def is_single(self) -> bool:
        return self.indices == {0} and sum("." in suffix for suffix in self.suffixes) > 1


def find_layers(names: Iterable[str], config: Mapping[str, Any]) -> LayerMap:
    """Find the stacks of layers of a model; linear in its names.

    Args:
        names: the names of its tensors.
        config: its config; the number of layers in it (or in its `text_config` and the like) chooses the
            main stack, and tells a single layer from other things called 0.
    """
    declared = list(_declared(config))
    one = any(count == 1 for _, count in declared)
    stacks: dict[str, int] = {}
    sizes: dict[str, int] = {}
    pending = [(name, 0) for name in names]
    while pending:  # one round per depth: the outermost number that counts layers is the layer's
        candidates, members = _next_numbers(pending)
        pending = []
        for prefix, candidate in candidates.items():
            if candidate.repeats() or (one and candidate.is_single()):
                stacks[prefix], sizes[prefix] = len(candidate.indices), len(members[prefix])
            else:
                pending += members[prefix]
    return LayerMap(stacks, _main(stacks, sizes, declared))


def _next_numbers(
    pending: list[tuple[str, int]],
) -> tuple[dict[str, _Candidate], dict[str, list[tuple[str, int]]]]:
    """The names by what precedes their next number; each with the position behind it."""
    candidates: defaultdict[str, _Candidate] = defaultdict(_Candidate)
    members: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, start in pending:
        number = _NUMBER.search(name, start)
        if number is not None:
            prefix, end = name[: number.start()], number.end()
            candidate = candidates[prefix]
            candidate.indices.add(int(number[0]))
            candidate.suffixes[name[end + 1 :]] += 1
            members[prefix].append((name, end))
    return candidates, members


def _declared(config: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, int]]:
    """Layer counts in a config and the sub-config's name they come from, the most telling first."""
    for key in _COUNTS:
        count = config.get(key)
        if isinstance(count, int) and not isinstance(count, bool):
            yield where, count
    inner = [key for key, value in config.items() if isinstance(value, Mapping)]
    for key in sorted(inner, key=lambda key: not _TRUNK.search(key)):
        yield from _declared(config[key], key.removesuffix("_config"))


def _main(stacks: Mapping[str, int], sizes: Mapping[str, int], declared: list[tuple[str, int]]) -> str | None:
    for where, count in declared:
        fitting = [prefix for prefix in stacks if stacks[prefix] == count]
        named = [prefix for prefix in fitting if where and where in prefix]
        if fitting:
            return max(named or fitting, key=lambda prefix: sizes[prefix])
    return max(stacks, key=lambda prefix: sizes[prefix], default=None)

"""The output's config: the template's, with what the merge changed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from plait.engine._stacked import StackedLayers

if TYPE_CHECKING:
    from plait.engine._plan import Plan

_COUNTS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "encoder_layers",
    "decoder_layers",
    "num_decoder_layers",
    "depth",
)
#: How configs call the type, before and since transformers 5.
_TYPES = ("torch_dtype", "dtype")
_TEXT = ("text_config", "llm_config", "language_config")
#: Words of a key that say which of a model's stacks it counts.
_STACKS = ("encoder", "decoder", "vision", "audio")


def output_config(plan: Plan) -> dict[str, Any]:
    """The template's config with what the merge changed: type, vocabulary, layers, tied weights."""
    config = json.loads(json.dumps(dict(plan.template.config), default=str))
    places = [config, *(config[key] for key in _TEXT if isinstance(config.get(key), dict))]
    names = {o.name for o in plan.outputs}
    dtype = next((o.dtype for o in plan.outputs if o.how == "merge"), None)
    if dtype is not None:
        asked = plan.recipe.out_dtype or plan.recipe.dtype
        if asked and not any(key in config for key in _TYPES):
            config["torch_dtype"] = None
        for place in places:
            for key in _TYPES:
                if key in place:
                    place[key] = str(dtype).removeprefix("torch.")
    if plan.alignment is not None:
        for place in places:
            if "vocab_size" in place:
                place["vocab_size"] = plan.alignment.rows
    for stack in plan.stacks:
        restack(config, stack)
    if any(alias in names for alias in plan.tied):
        for place in places:
            if "tie_word_embeddings" in place:
                place["tie_word_embeddings"] = False
        config["tie_word_embeddings"] = False
    return config


def restack(config: dict[str, Any], stack: StackedLayers) -> None:
    """Set the number of layers, and lists with an entry per layer, where they speak of this stack.

    A key (or the sub-config around it) that names an encoder, a decoder, vision or audio counts layers
    whose names have that word; of those that count the stack, the ones that name it are the only ones.
    """
    found = [(place, key, path) for place, key, path in _counts(config) if place[key] == stack.before]
    fitting = [item for item in found if _words(item[2]) <= _words(stack.prefix)]
    named = [item for item in fitting if _words(item[2])]
    for place, key, _ in named or fitting:
        place[key] = len(stack.layers)
    for place in {id(place): place for place, _, _ in named or fitting}.values():
        for key, value in place.items():
            # Kinds of attention, say, follow their layers.
            per_layer = isinstance(value, list) and len(value) == stack.before
            if per_layer and max(stack.layers, default=0) < stack.before:
                place[key] = [value[layer] for layer in stack.layers]


def _counts(config: dict[str, Any], path: str = "") -> Iterator[tuple[dict[str, Any], str, str]]:
    """Every count of layers: the mapping that it stands in, its key, and its path."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _counts(value, f"{path}{key}.")
        elif key in _COUNTS and type(value) is int:
            yield config, key, f"{path}{key}"


def _words(path: str) -> set[str]:
    return set(re.split(r"[._]", path)) & set(_STACKS)

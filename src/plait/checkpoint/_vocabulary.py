"""Tensors with a row per token, and output heads that are the embedding under another name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from plait.checkpoint._structure import find_layers
from plait.checkpoint._tensor import Checkpoint, LazyTensor

_TEXT_CONFIGS = ("text_config", "llm_config", "language_config", "thinker_config", "decoder")


def vocab_size(config: Mapping[str, Any]) -> int | None:
    """The vocabulary's size in a config or in its part for text; None where neither says."""
    size = config.get("vocab_size")
    if isinstance(size, int) and not isinstance(size, bool):
        return size
    inner = (config[key] for key in _TEXT_CONFIGS if isinstance(config.get(key), Mapping))
    return next((size for size in map(vocab_size, inner) if size is not None), None)


def find_embeddings(tensors: Mapping[str, LazyTensor], config: Mapping[str, Any]) -> set[str]:
    """Names of the tensors whose first axis is the vocabulary: embeddings, output heads, their biases.

    They lie outside of the layers, have one or two axes, and as many rows as the config's vocabulary.
    """
    size = vocab_size(config)
    if size is None:
        return set()
    fitting = [n for n, t in tensors.items() if 0 < len(t.shape) < 3 and t.shape[0] == size]
    if not fitting:
        return set()
    layers = find_layers(tensors, config)
    return {name for name in fitting if layers.layer_of(name) is None}


def find_tied(checkpoint: Checkpoint, others: Iterable[Checkpoint] = ()) -> dict[str, str]:
    """Names that this model does not store because another of its tensors stands for them.

    Beside what the checkpoint itself says (`Checkpoint.tied`): a tensor over the vocabulary that another
    model of the merge stores and this one lacks is this one's only such tensor of equal width (the
    embedding, or the head's bias), unless the config says that they are not tied.

    Args:
        checkpoint: the model.
        others: the other models of the merge, which know what its output head is called.

    Returns:
        Alias → name of the stored tensor.
    """
    tied = {alias: name for alias, name in checkpoint.tied.items() if alias not in checkpoint}
    if not _says_tied(checkpoint.config):
        return tied
    owned = find_embeddings(checkpoint, checkpoint.config)
    for other in others:
        for name in find_embeddings(other, other.config):
            width = other[name].shape[1:]
            stored = [own for own in owned if checkpoint[own].shape[1:] == width and own in other]
            if name not in checkpoint and len(stored) == 1:
                tied.setdefault(name, stored[0])
    return tied


def _says_tied(config: Mapping[str, Any]) -> bool:
    """Whether the config ties, or does not say, as configs leave out what is their class's default."""
    said = [config.get("tie_word_embeddings")]
    said += [
        config[key].get("tie_word_embeddings")
        for key in _TEXT_CONFIGS
        if isinstance(config.get(key), Mapping)
    ]
    return next((value for value in said if isinstance(value, bool)), True)

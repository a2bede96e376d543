"""What kind of module a matrix belongs to, from names, shapes and config alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from plait.checkpoint import Checkpoint, LazyTensor, find_embeddings

Kind = Literal["linear", "transposed", "embedding"]

#: Last words of embeddings' names over the libraries (`embed_tokens`, `wte`, `word_embeddings`, `shared`).
_EMBEDDING = re.compile(
    r"(?:^|[._])(?:w[tp]e|shared|relative_attention_bias|tok_embd)$|emb(?:ed|edd|edding|eddings)?s?(?:_|$)"
)
_HEAD = re.compile(r"head|score|classifier|decoder$|unembed|embed_out$")


def matrix_kinds(checkpoint: Checkpoint) -> dict[str, Kind]:
    """Module → kind, for every module whose `weight` is a floating-point matrix.

    `transposed` is a weight stored as `(in, out)` (GPT-2's Conv1D): its bias is as long as a row. A square
    one is what the nearest modules are. An embedding is found by its name.
    """
    weights = {
        name.removesuffix(".weight"): tensor
        for name, tensor in checkpoint.items()
        if name.endswith(".weight") and len(tensor.shape) == 2 and tensor.dtype.is_floating_point
    }
    found: dict[str, Kind | None] = {
        module: _kind(module, tensor, checkpoint) for module, tensor in weights.items()
    }
    sure: dict[str, Kind] = {module: kind for module, kind in found.items() if kind is not None}
    return {module: sure.get(module) or _as_neighbours(module, sure) for module in weights}


def _kind(module: str, weight: LazyTensor, checkpoint: Mapping[str, LazyTensor]) -> Kind | None:
    last = module.rpartition(".")[2]
    if _EMBEDDING.search(last) and not _HEAD.search(last):
        return "embedding"
    bias = checkpoint.get(f"{module}.bias")
    if bias is None:
        return "linear"  # a Conv1D always has a bias
    rows, columns = weight.shape
    if rows == columns:
        return None
    return "transposed" if bias.shape == (columns,) else "linear"


def _as_neighbours(module: str, sure: Mapping[str, Kind]) -> Kind:
    parent = module
    while parent:
        parent = parent.rpartition(".")[0]
        near = {k for name, k in sure.items() if name.startswith(f"{parent}.") and k != "embedding"}
        if near:
            return "transposed" if near == {"transposed"} else "linear"
    return "linear"


def tied_embeddings(checkpoint: Checkpoint, kinds: Mapping[str, Kind]) -> set[str]:
    """The embeddings that are the output head as well, so that a change of one is a change of both."""
    tied = {name.removesuffix(".weight") for name in checkpoint.tied.values()}
    ties = checkpoint.config.get("tie_word_embeddings", True) and _predicts_tokens(checkpoint.config)
    if ties and not _has_head(checkpoint, kinds):
        tied |= {name.removesuffix(".weight") for name in find_embeddings(checkpoint, checkpoint.config)}
    return {module for module in tied if kinds.get(module) == "embedding"}


def _has_head(checkpoint: Checkpoint, kinds: Mapping[str, Kind]) -> bool:
    """Whether an output head over the vocabulary is stored beside the embedding."""
    rows = find_embeddings(checkpoint, checkpoint.config)
    return any(f"{module}.weight" in rows and kind != "embedding" for module, kind in kinds.items())


def _predicts_tokens(config: Mapping[str, Any]) -> bool:
    """Whether the architecture may have an output head over the vocabulary; true where it is not known."""
    architecture = next(iter(config.get("architectures") or ()), "")
    return not architecture or bool(re.search(r"LM|ConditionalGeneration|PreTraining", architecture))


def task_type(config: Mapping[str, Any]) -> str | None:
    """PEFT's word for what the model is for, where the config's architecture says it."""
    architecture = next(iter(config.get("architectures") or ()), "")
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return "CAUSAL_LM"
    encoder_decoder = bool(config.get("is_encoder_decoder"))
    return "SEQ_2_SEQ_LM" if encoder_decoder and architecture.endswith("ForConditionalGeneration") else None

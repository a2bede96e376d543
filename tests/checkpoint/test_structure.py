"""Layers, embeddings and tied heads are found in real models, from names, shapes and configs alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from plait.checkpoint import find_embeddings, find_layers, find_tied, open_checkpoint

STACKS = {
    "llama": ({"model.layers.": 3}, "model.layers."),
    "gpt2": ({"transformer.h.": 3}, "transformer.h."),
    "t5": ({"encoder.block.": 3, "decoder.block.": 2}, "encoder.block."),
    "bert": ({"bert.encoder.layer.": 3}, "bert.encoder.layer."),
    "mixtral": ({"model.layers.": 3}, "model.layers."),
    "qwen_moe": ({"model.layers.": 3}, "model.layers."),
    "clip": (
        {"text_model.encoder.layers.": 3, "vision_model.encoder.layers.": 2},
        "text_model.encoder.layers.",
    ),
    "mamba": ({"backbone.layers.": 3}, "backbone.layers."),
    "gemma3": ({"model.layers.": 3}, "model.layers."),
    "qwen3_moe": ({"model.layers.": 3}, "model.layers."),
    "phi3": ({"model.layers.": 3}, "model.layers."),
    "gpt_neox": ({"gpt_neox.layers.": 3}, "gpt_neox.layers."),
    "roberta": ({"roberta.encoder.layer.": 3}, "roberta.encoder.layer."),
    "distilbert": ({"distilbert.transformer.layer.": 3}, "distilbert.transformer.layer."),
    "whisper": ({"model.decoder.layers.": 3, "model.encoder.layers.": 2}, "model.decoder.layers."),
    "llava": (
        {"language_model.model.layers.": 3, "vision_tower.encoder.layers.": 2},
        "language_model.model.layers.",
    ),
}


@pytest.mark.parametrize("name", STACKS)
def test_stacks_of_real_models(zoo, name: str) -> None:
    opened = open_checkpoint(zoo.folder(name))
    found = find_layers(opened, opened.config)
    assert (dict(found.stacks), found.main) == STACKS[name]


def test_vit_has_one_stack(zoo) -> None:
    opened = open_checkpoint(zoo.folder("vit"))
    found = find_layers(opened, opened.config)
    assert list(found.stacks.values()) == [2]
    assert found.main is not None
    assert found.count() == 2


def test_layers_of_names_and_renaming(zoo) -> None:
    opened = open_checkpoint(zoo.folder("mixtral"))
    layers = find_layers(opened, opened.config)
    expert = "model.layers.2.block_sparse_moe.experts.1.w1.weight"
    assert layers.layer_of(expert) == ("model.layers.", 2)
    assert layers.rename(expert, 10) == "model.layers.10.block_sparse_moe.experts.1.w1.weight"
    assert layers.layer_of("model.norm.weight") is None
    assert layers.rename("model.norm.weight", 1) == "model.norm.weight"
    assert layers.rename(layers.rename(expert, 10), 2) == expert


def test_a_single_layer_needs_the_config() -> None:
    names = ["model.embed.weight", "model.layers.0.attn.q.weight", "model.layers.0.mlp.up.weight"]
    names += [f"model.layers.0.mlp.experts.{k}.up.weight" for k in range(4)]
    assert find_layers(names, {"num_hidden_layers": 1}).stacks == {"model.layers.": 1}
    wrapped = [f"0.auto_model.encoder.layer.{k}.attn.q.weight" for k in range(4)]
    assert find_layers(wrapped, {}).stacks == {"0.auto_model.encoder.layer.": 4}


def test_modules_in_a_list_are_no_layers() -> None:
    plain = ["0.weight", "0.bias", "1.weight", "3.weight", "head.0.weight", "head.1.weight"]
    assert find_layers(plain, {}).stacks == {}
    assert find_layers(plain, {}).main is None
    assert find_layers([], {}).count() == 0
    gap = [f"layers.{k}.attn.q.weight" for k in (0, 2)]
    assert find_layers(gap, {}).stacks == {}


def test_layers_of_different_kinds_make_one_stack() -> None:
    names = [f"backbone.layers.{k}.norm.weight" for k in range(4)]
    names += ["backbone.layers.0.mixer.in_proj.weight", "backbone.layers.1.mixer.q_proj.weight"]
    assert find_layers(names, {"num_hidden_layers": 4}).stacks == {"backbone.layers.": 4}


def test_the_trunk_is_chosen_over_towers_of_equal_depth() -> None:
    names = [
        f"{tower}.layers.{k}.{part}.weight"
        for tower in ("vision", "language_model")
        for k in range(3)
        for part in ("attn.q", "mlp.up")
    ]
    config = {"vision_config": {"num_hidden_layers": 3}, "text_config": {"num_hidden_layers": 3}}
    assert find_layers(["text.x", *names], config).main in {"vision.layers.", "language_model.layers."}
    named = [name.replace("language_model", "model.text") for name in names]
    assert find_layers(named, config).main == "model.text.layers."


EMBEDDINGS = {
    "llama": {"model.embed_tokens.weight", "lm_head.weight"},
    "llama_tied": {"model.embed_tokens.weight"},
    "gpt2": {"transformer.wte.weight"},
    "t5": {"shared.weight"},
    "clip": {"text_model.embeddings.token_embedding.weight"},
    "vit": set(),
    "gpt_neox": {"gpt_neox.embed_in.weight", "embed_out.weight"},
    "distilbert": {"distilbert.embeddings.word_embeddings.weight", "vocab_projector.bias"},
    "whisper": {"model.decoder.embed_tokens.weight"},
    "llava": {"language_model.model.embed_tokens.weight", "language_model.lm_head.weight"},
}


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_tensors_over_the_vocabulary(zoo, name: str) -> None:
    opened = open_checkpoint(zoo.folder(name))
    assert find_embeddings(opened, opened.config) == EMBEDDINGS[name]


def test_biases_over_the_vocabulary(zoo) -> None:
    opened = open_checkpoint(zoo.folder("bert"))
    found = find_embeddings(opened, opened.config)
    assert found == {"bert.embeddings.word_embeddings.weight", "cls.predictions.bias"}


def test_a_head_that_only_the_other_model_stores_is_tied(zoo, tmp_path: Path) -> None:
    tied, untied = open_checkpoint(zoo.folder("llama_tied")), open_checkpoint(zoo.folder("llama"))
    assert find_tied(tied, [untied]) == {"lm_head.weight": "model.embed_tokens.weight"}
    assert find_tied(untied, [tied]) == {}
    assert find_tied(tied) == {}
    assert find_tied(tied, [tied]) == {}
    shutil.copytree(zoo.folder("llama_tied"), tmp_path / "m")
    config = json.loads((tmp_path / "m/config.json").read_text()) | {"tie_word_embeddings": False}
    (tmp_path / "m/config.json").write_text(json.dumps(config))
    assert find_tied(open_checkpoint(tmp_path / "m"), [untied]) == {}


@pytest.mark.parametrize("name", ["gpt2", "t5", "bert", "mamba", "roberta", "whisper", "gemma2"])
def test_every_alias_of_a_live_model_is_found_from_a_model_that_stores_it(zoo, name: str) -> None:
    saved, live = open_checkpoint(zoo.folder(name)), open_checkpoint(zoo.model(name))
    everything = {**live, **{alias: live[stored] for alias, stored in live.tied.items()}}
    untied = replace(live, tensors=everything, tied={}, config={**live.config, "tie_word_embeddings": False})
    assert find_tied(saved, [untied]) == dict(live.tied)
    assert find_tied(untied, [saved]) == {}


def test_ties_that_the_checkpoint_knows_are_kept() -> None:
    weight = torch.randn(3, 2)
    assert find_tied(open_checkpoint({"a": weight, "b": weight})) == {"b": "a"}

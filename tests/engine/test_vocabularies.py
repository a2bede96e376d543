"""Vocabularies brought to one in real merges: every row is checked against what its token says."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import plait
from plait.errors import InputError

sys.path.insert(0, str(Path(__file__).parent))
from talking import CODE, PROSE, TURNS, llama, loaded, stored, tokenizer

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Models of three vocabularies, each tied and untied."""
    root = tmp_path_factory.mktemp("family")
    words = {"plain": tokenizer(PROSE, 60), "chat": tokenizer(PROSE, 60, TURNS), "code": tokenizer(CODE, 75)}
    words["chat"].chat_template = "{% for m in messages %}<|turn|>{{ m['content'] }}<|end|>{% endfor %}"
    found = {}
    for seed, (name, own) in enumerate(words.items()):
        for tied in (False, True):
            folder = root / (f"tied-{name}" if tied else name)
            found[folder.name] = str(llama(folder, own, seed, tied=tied))
    return found


Row = np.ndarray[Any, np.dtype[np.float64]]


def rows(folder: str, name: str) -> dict[str, Row]:
    """Token → its row."""
    from transformers import AutoTokenizer

    tensors = stored(folder)
    table = tensors[name] if name in tensors else tensors[EMBEDDING]
    return {
        t: table[i].astype(np.float64) for t, i in AutoTokenizer.from_pretrained(folder).get_vocab().items()
    }


def mean_of_models(token: str, models: Sequence[Mapping[str, Row]], base: Mapping[str, Row] | None) -> Row:
    """A model that lacks the token takes the base's row, or the mean of those that there are."""
    held = [model[token] for model in models if token in model]
    instead = base[token] if base is not None and token in base else np.mean(held, axis=0)
    return np.mean([model.get(token, instead) for model in models], axis=0)


def check(out: Path, name: str, models: Sequence[str], base: str | None = None) -> None:
    """Every row of the output is the mean that its token says."""
    known = [rows(model, name) for model in models]
    start = None if base is None else rows(base, name)
    for token, row in rows(str(out), name).items():
        np.testing.assert_allclose(row, mean_of_models(token, known, start), rtol=1e-5, atol=1e-7)


def run(recipe: Mapping[str, Any], out: Path, **options: Any) -> Path:
    plait.run(plait.build_plan(plait.load_recipe(recipe)[-1], plait.RunOptions(**options)), out)
    return out


def linear(models: Sequence[str], **more: Any) -> dict[str, Any]:
    """A recipe in mergekit's grammar."""
    listed = [{"model": model, "parameters": {"weight": 1}} for model in models]
    return {"merge_method": "linear", "models": listed, **more}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("source", ["union", "base", "code"])
def test_every_row_is_that_of_its_token(family, tmp_path, source, tied):
    prefix = "tied-" if tied else ""
    models = [family[prefix + name] for name in ("plain", "chat", "code")]
    chosen = source if source in ("union", "base") else family[prefix + source]
    out = run(linear(models, base_model=models[0], tokenizer={"source": chosen}), tmp_path / "out")
    model, words = loaded(out)
    own = [set(rows(m, EMBEDDING)) for m in models]
    assert set(words.get_vocab()) == {"union": set.union(*own), "base": own[0], "code": own[2]}[source]
    assert model.config.vocab_size == len(words) == len(stored(out)[EMBEDDING])
    assert (HEAD in stored(out)) is not tied
    check(out, EMBEDDING, models, models[0])
    if not tied:
        check(out, HEAD, models, models[0])
    cut = words("the cat <|turn|> def main")["input_ids"]
    assert ("<|turn|>" in words.convert_ids_to_tokens(cut)) is (source == "union")
    assert bool(model(torch.tensor([cut])).logits.isfinite().all())


def test_the_base_keeps_its_ids_in_a_union(family, tmp_path):
    models = [family["plain"], family["code"]]
    out = run(linear(models, base_model=models[0], tokenizer_source="union"), tmp_path / "out")
    _, words = loaded(out)
    _, before = loaded(models[0])
    found = words.get_vocab()
    assert {token: found[token] for token in before.get_vocab()} == before.get_vocab()
    assert sorted(found.values()) == list(range(len(found)))


@pytest.mark.parametrize("order", [("plain", "tied-chat"), ("tied-plain", "chat")])
def test_vocabularies_of_a_tied_and_an_untied_model(family, tmp_path, order):
    models = [family[name] for name in order]
    for number, base in enumerate(models):
        out = run(linear(models, base_model=base, tokenizer_source="union"), tmp_path / str(number))
        model, _ = loaded(out)
        assert model.config.tie_word_embeddings is False
        check(out, EMBEDDING, models, base)
        check(out, HEAD, models, base)


@pytest.mark.parametrize("tied", [False, True])
def test_tokens_take_the_rows_that_the_recipe_names(family, tmp_path, tied):
    plain, chat = (family[("tied-" if tied else "") + name] for name in ("plain", "chat"))
    tokens = {
        "<|turn|>": {"source": chat},
        "<|end|>": {"source": {"kind": "zero"}, "force": True},
        "<s>": {"source": {"kind": "model_token", "model": chat, "token": "<|turn|>"}, "force": True},
        "<alias>": {"source": {"kind": "model_token", "model": plain, "token_id": 7}},
        "</s>": {"source": chat},  # both have it, so this changes nothing
    }
    recipe = linear([plain, chat], base_model=plain, tokenizer={"source": "union", "tokens": tokens})
    out = run(recipe, tmp_path / "out")
    loaded(out)
    for name in [EMBEDDING] if tied else [EMBEDDING, HEAD]:
        found, a, b = rows(str(out), name), rows(plain, name), rows(chat, name)
        seventh = stored(plain)[EMBEDDING if tied else name][7]
        expected = {
            "<|turn|>": b["<|turn|>"],
            "<|end|>": 0 * b["<|end|>"],
            "<s>": b["<|turn|>"],
            "<alias>": seventh,
            "</s>": (a["</s>"] + b["</s>"]) / 2,
            "the": (a["the"] + b["the"]) / 2,
        }
        for token, row in expected.items():
            np.testing.assert_allclose(found[token], row, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("tied", [False, True])
def test_rows_beyond_the_tokens_are_the_mean_of_the_others(family, tmp_path, tied):
    models = [family[("tied-" if tied else "") + name] for name in ("plain", "chat")]
    spec = {"source": "union", "pad_to_multiple_of": 32}
    out = run(linear(models, base_model=models[0], tokenizer=spec), tmp_path / "out", memory=4000)
    model, words = loaded(out)
    assert model.config.vocab_size == 64
    for name in [EMBEDDING] if tied else [EMBEDDING, HEAD]:
        table = stored(out)[name]
        mean = table[: len(words)].astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(
            table[len(words) :], np.tile(mean, (64 - len(words), 1)), rtol=1e-5, atol=1e-7
        )


def test_differing_vocabularies_without_a_tokenizer_section_are_an_error(family, tmp_path):
    plain, code = family["plain"], family["code"]
    with pytest.raises(InputError) as caught:
        run(linear([plain, code]), tmp_path / "out")
    said = str(caught.value)
    for model in (plain, code):
        assert f"{model} has [{len(rows(model, EMBEDDING))}, 8]" in said
    assert "tokenizer: {source: union}" in said
    assert not (tmp_path / "out").exists()


def test_a_chat_template_goes_with_the_tokenizer_that_it_was_written_for(family, tmp_path):
    plain, chat = family["plain"], family["chat"]
    for name, source, base in (("to", chat, plain), ("from", plain, chat)):
        recipe = linear([plain, chat], base_model=base, tokenizer_source=source)
        _, words = loaded(run(recipe, tmp_path / name))
        assert bool(words.chat_template) is (source == chat)


def test_the_tokenizer_files_of_another_model_do_not_stay(family, tmp_path):
    plain = llama(tmp_path / "plain", tokenizer(PROSE, 60), 5)
    for name in ("vocab.json", "merges.txt", "chat_template.json"):
        (plain / name).write_text("{}")
    recipe = linear([str(plain), family["code"]], base_model=str(plain), tokenizer_source=family["code"])
    out = run(recipe, tmp_path / "out")
    assert {"vocab.json", "merges.txt", "chat_template.json"}.isdisjoint(path.name for path in out.iterdir())


def test_a_stage_hands_its_vocabulary_and_tokenizer_on(family, tmp_path):
    plain, chat, code = family["plain"], family["chat"], family["code"]
    stage = {"name": "talk", **linear([plain, chat], base_model=plain, tokenizer_source="union")}
    stage["chat_template"] = "chatml"
    final = linear(["talk", code], base_model="talk", tokenizer_source="union", chat_template="auto")
    path = tmp_path / "recipe.yml"
    path.write_text(f"{json.dumps(stage)}\n---\n{json.dumps(final)}\n")
    out = tmp_path / "out"
    plait.run(plait.build_plan(plait.load_recipe(path)[-1]), out)
    first = run({k: v for k, v in stage.items() if k != "name"}, tmp_path / "first")
    model, words = loaded(out)
    assert (
        len(words)
        == model.config.vocab_size
        == len(set(rows(str(first), EMBEDDING)) | set(rows(code, EMBEDDING)))
    )
    check(out, EMBEDDING, [str(first), code], str(first))
    check(out, HEAD, [str(first), code], str(first))
    assert "<|im_start|>" in words.chat_template


def test_what_a_stage_changed_is_in_an_output_without_a_tokenizer_section(family, tmp_path):
    plain, chat = family["plain"], family["chat"]
    stage = {"name": "talk", **linear([plain, chat], base_model=plain, tokenizer_source="union")}
    final = {"merge_method": "passthrough", "models": [{"model": "talk"}]}
    path = tmp_path / "recipe.yml"
    path.write_text(f"{json.dumps(stage)}\n---\n{json.dumps(final)}\n")
    plait.run(plait.build_plan(plait.load_recipe(path)[-1]), tmp_path / "out")
    model, words = loaded(tmp_path / "out")
    assert "<|turn|>" in words.get_vocab()
    assert model.config.vocab_size == len(words)

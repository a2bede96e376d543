"""Small real tokenizers: read as JSON, merged, and loaded again by the libraries they are for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from plait.errors import InputError
from plait.recipe import (
    ModelRef,
    TokenSource,
    align_vocabularies,
    read_vocabulary,
    write_tokenizer,
)
from plait.recipe import Tokenizer as Spec

A, B = ModelRef("a"), ModelRef("b")
TEXT = ["the cat sat on the mat", "a bat and a rat sat", "cats and rats chat at the mat"]


def bpe(folder: Path, special: list[str], size: int = 60, text: list[str] = TEXT) -> Path:
    """A byte-level BPE tokenizer with a config that transformers loads."""
    folder.mkdir()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=["<s>"], show_progress=False)
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"vocab_size": tokenizer.get_vocab_size()}))
    return folder


def load(folder: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def align(spec: Spec, a: Path, b: Path, **changes):
    vocabularies = {A: read_vocabulary(a), B: read_vocabulary(b)}
    return align_vocabularies(spec, vocabularies, models=[A, B], base=A, **changes)


def test_a_vocabulary_is_what_transformers_says_it_is(tmp_path: Path):
    folder = bpe(tmp_path / "a", ["<|turn|>"])
    found = read_vocabulary(folder)
    assert found.tokens == load(folder).get_vocab()
    assert found.rows == len(found.tokens)
    assert found.added.keys() == {"<s>", "<|turn|>"}
    assert found.added["<|turn|>"].special
    assert read_vocabulary(folder, rows=99).rows == 99


def test_the_number_of_rows_is_found_in_nested_configs(tmp_path: Path):
    folder = bpe(tmp_path / "a", [])
    (folder / "config.json").write_text(json.dumps({"text_config": {"vocab_size": 77}}))
    assert read_vocabulary(folder).rows == 77
    (folder / "config.json").unlink()
    assert read_vocabulary(folder).rows == len(read_vocabulary(folder).tokens)


def test_tokens_that_only_the_config_adds_count(tmp_path: Path):
    folder = bpe(tmp_path / "a", [])
    size = len(read_vocabulary(folder).tokens)
    path = folder / "tokenizer_config.json"
    extra = {str(size): {"content": "<late>", "special": True}}
    path.write_text(json.dumps({**json.loads(path.read_text()), "added_tokens_decoder": extra}))
    assert read_vocabulary(folder, size + 1).tokens["<late>"] == size


def test_unigram_and_word_vocabularies_are_read(tmp_path: Path):
    for name, model in (
        ("unigram", models.Unigram([("<unk>", 0.0), ("a", -1.0), ("b", -2.0)], unk_id=0)),
        ("words", models.WordLevel({"<unk>": 0, "a": 1, "b": 2}, unk_token="<unk>")),
    ):
        (tmp_path / name).mkdir()
        Tokenizer(model).save(str(tmp_path / name / "tokenizer.json"))
        assert read_vocabulary(tmp_path / name).tokens == {"<unk>": 0, "a": 1, "b": 2}


def test_a_folder_with_only_a_word_list_goes_through_transformers(tmp_path: Path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "mat"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": 7}))
    found = read_vocabulary(tmp_path)
    assert found.tokens == {word: row for row, word in enumerate(words)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "not an object"),
        ("{}", "not the file of a tokenizer"),
        ('{"model": {"vocab": {"a": -1}}}', "the token `'a'` has no valid id"),
        ('{"model": {"vocab": {"a": "b"}}}', "the token `'a'` has no valid id"),
        ('{"model": {"vocab": {}}, "added_tokens": [3]}', "not the file of a tokenizer"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, content: str, message: str):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_vocabulary(tmp_path)


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no tokenizer can be loaded"):
        read_vocabulary(tmp_path)


def test_an_unchanged_vocabulary_copies_the_files_byte_for_byte(tmp_path: Path):
    a, b, out = bpe(tmp_path / "a", ["<x>"]), bpe(tmp_path / "b", []), tmp_path / "out"
    out.mkdir()
    assert write_tokenizer(align(Spec("base"), a, b), out) == ["tokenizer.json", "tokenizer_config.json"]
    assert (out / "tokenizer.json").read_bytes() == (a / "tokenizer.json").read_bytes()


def test_a_union_encodes_what_both_tokenizers_know(tmp_path: Path):
    a = bpe(tmp_path / "a", ["<|a|>"])
    b = bpe(tmp_path / "b", ["<|b|>"], 70, ["zebras zigzag", *TEXT])
    out = tmp_path / "out"
    out.mkdir()
    alignment = align(Spec("union"), a, b)
    write_tokenizer(alignment, out)
    merged = load(out)
    assert merged.get_vocab() == dict(alignment.tokens)
    assert {"<|a|>", "<|b|>"} <= merged.get_vocab().keys()
    before, text = load(a), "the cat sat<|a|> on a rat"
    assert merged.encode(text) == before.encode(text)
    assert merged.encode("<|b|>")[-1] == alignment.tokens["<|b|>"]
    assert merged.decode(merged.encode(text)) == text


def test_tokens_of_the_recipe_are_added_also_to_the_config(tmp_path: Path):
    a, b, out = bpe(tmp_path / "a", ["<x>"]), bpe(tmp_path / "b", []), tmp_path / "out"
    out.mkdir()
    path = a / "tokenizer_config.json"
    decoder = {str(read_vocabulary(a).tokens["<x>"]): {"content": "<x>", "special": True}}
    path.write_text(json.dumps({**json.loads(path.read_text()), "added_tokens_decoder": decoder}))
    alignment = align(Spec("base", {"<new>": TokenSource("zero")}), a, b)
    write_tokenizer(alignment, out)
    config = json.loads((out / "tokenizer_config.json").read_text())
    assert config["added_tokens_decoder"][str(alignment.tokens["<new>"])]["content"] == "<new>"
    assert load(out).convert_tokens_to_ids("<new>") == alignment.tokens["<new>"]


def test_tokens_without_a_row_are_taken_out_of_the_files(tmp_path: Path):
    a, b, out = bpe(tmp_path / "a", []), bpe(tmp_path / "b", []), tmp_path / "out"
    out.mkdir()
    size = len(read_vocabulary(a).tokens)
    (a / "config.json").write_text(json.dumps({"vocab_size": size - 5}))
    alignment = align(Spec("base"), a, b)
    write_tokenizer(alignment, out)
    assert len(load(out).get_vocab()) == size - 5
    assert max(load(out).encode("the cat sat on the mat")) < size - 5


def test_ids_with_gaps_cannot_take_new_tokens(tmp_path: Path):
    a, b, out = tmp_path / "a", bpe(tmp_path / "b", []), tmp_path / "out"
    a.mkdir()
    out.mkdir()
    Tokenizer(models.WordLevel({"a": 0, "b": 9}, unk_token="a")).save(str(a / "tokenizer.json"))
    with pytest.raises(InputError, match=r"gives .* the id"):
        write_tokenizer(align(Spec("union"), a, b), out)


def test_a_word_list_becomes_a_tokenizer_file_when_tokens_are_added(tmp_path: Path):
    a, out = tmp_path / "a", tmp_path / "out"
    a.mkdir()
    out.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "mat"]
    (a / "vocab.txt").write_text("\n".join(words) + "\n")
    (a / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    (a / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": 7}))
    alignment = align_vocabularies(
        Spec("base", {"<new>": TokenSource("zero")}), {A: read_vocabulary(a)}, models=[A], base=A
    )
    assert "tokenizer.json" in write_tokenizer(alignment, out)
    assert load(out).get_vocab() == dict(alignment.tokens)


def test_a_chat_template_replaces_the_one_in_the_config(tmp_path: Path):
    a, b, out = bpe(tmp_path / "a", []), bpe(tmp_path / "b", []), tmp_path / "out"
    out.mkdir()
    path = a / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": "{{ old }}"}))
    written = write_tokenizer(align(Spec("base"), a, b), out, chat_template="{{ messages[0]['content'] }}")
    assert "chat_template.jinja" in written
    messages = [{"role": "user", "content": "hello"}]
    assert load(out).apply_chat_template(messages, tokenize=False) == "hello"

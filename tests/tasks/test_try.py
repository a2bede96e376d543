"""Language models side by side: numbers are those of plain computations, and what is no model is told."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from words import TEMPLATE, tokenizer

from plait.cli import main
from plait.cli.try_models import repeated
from plait.errors import InputError, MissingExtra
from plait.tasks import try_models
from plait.tasks._passages import default_text, passages
from plait.tasks._round_trip import SAMPLES, round_trip

TEXT = "The cat sat on the mat. Grüße aus Köln!\n\nNumbers: 1 2 3 4 5.\n"
CONTEXT = 64


def llama(seed: int = 0, rows: int = 400, **options: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=rows, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                         num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=CONTEXT,
                         bos_token_id=1, eos_token_id=1, **options)  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # so that it is surer of what it says
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model and its tokenizer, saved."""
    return saved(tmp_path / "model", llama())


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def saved(folder: Path, model: Any, words: Any = None) -> Path:
    model.save_pretrained(folder)
    (words or tokenizer(TEMPLATE)).save_pretrained(folder)
    return folder


def nats(model: Any, ids: list[int]) -> float:
    """−log p of all tokens but the first, one after the other."""
    model.eval()
    total = 0.0
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    for place in range(1, len(ids)):
        total -= float(logits[place - 1].softmax(-1)[ids[place]].log())
    return total


def one(reference: Any, **options: Any) -> Any:
    (found,) = try_models(reference, **{"prompts": ["The cat"], "tokens": 4, **options}).tried
    return found


def test_all_models_that_are_not_there_are_named_before_one_is_loaded(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("plait.tasks._try.load_language_model", None)
    missing = [str(tmp_path / name) for name in ("nope", "nada")]
    with pytest.raises(InputError) as caught:
        try_models([folder, *missing])
    assert all(f"{name}: no such file or folder" in str(caught.value) for name in missing)


def test_a_study_s_folder_is_told_from_a_model_s(tmp_path):
    (tmp_path / "steps").mkdir()
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(InputError, match="this is the folder of a study, not of a model"):
        try_models(tmp_path)
    (made := tmp_path / "steps" / "average-@0-0123456789ab" / "model").mkdir(parents=True)
    with pytest.raises(InputError) as caught:
        try_models(tmp_path)
    assert str(caught.value).endswith(f"/steps/WAY-…/model, such as {made}")


def test_perplexity_is_that_of_the_text_behind_a_start_token(folder, text):
    words = tokenizer()
    ids = words(TEXT)["input_ids"]
    assert len(ids) < CONTEXT
    wanted = nats(llama(), [words.eos_token_id, *ids])
    fit = one(folder, text=text).fit
    assert (fit.tokens, fit.size, fit.unknown) == (len(ids), len(TEXT.encode()), 0)
    assert fit.perplexity == pytest.approx(math.exp(wanted / len(ids)), rel=1e-5)
    assert fit.bits_per_byte == pytest.approx(wanted / math.log(2) / len(TEXT.encode()), rel=1e-5)


def test_a_long_text_comes_in_pieces_that_fit_the_context_and_every_byte_counts(folder, text):
    long = TEXT * 40
    text.write_text(long, encoding="utf-8")
    words, total, tokens = tokenizer(), 0.0, 0
    for passage in passages(long):
        ids = words(passage)["input_ids"]
        for start in range(0, len(ids), CONTEXT - 1):
            piece = ids[start : start + CONTEXT - 1]
            total, tokens = total + nats(llama(), [words.eos_token_id, *piece]), tokens + len(piece)
    fit = one(folder, text=text).fit
    assert (fit.tokens, fit.size) == (tokens, len(long.encode()))
    assert fit.perplexity == pytest.approx(math.exp(total / tokens), rel=1e-5)


def test_without_a_start_token_the_first_is_given_and_its_bytes_do_not_count(tmp_path, text):
    words = tokenizer()
    words.eos_token = None
    ids = words(TEXT)["input_ids"]
    fit = one(saved(tmp_path / "model", llama(), words), text=text).fit
    assert fit.tokens == len(ids) - 1
    assert fit.size == len(TEXT.encode()) - len(words.decode(ids[:1]).encode())
    assert fit.perplexity == pytest.approx(math.exp(nats(llama(), ids) / (len(ids) - 1)), rel=1e-5)


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary(tmp_path, text):
    model = llama()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    fit = one(saved(tmp_path / "model", model), text=text).fit
    assert fit.perplexity == pytest.approx(400, rel=1e-5)
    assert fit.bits_per_byte == pytest.approx(fit.tokens * math.log2(400) / fit.size, rel=1e-5)


def test_completions_are_the_likeliest_tokens_whatever_the_folder_says_of_generating(folder):
    from transformers import GenerationConfig

    GenerationConfig(do_sample=True, temperature=0.7, num_beams=3, top_k=5).save_pretrained(folder)
    words, model, ids = tokenizer(), llama(), tokenizer()("The cat")["input_ids"]
    start = len(ids)
    for _ in range(6):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == words.eos_token_id:
            break
    wanted = words.decode(ids[start:], skip_special_tokens=True)
    assert one(folder, tokens=6).completions == (wanted,)
    made = model.generate(**words("The cat", return_tensors="pt"), do_sample=False, max_new_tokens=6)
    assert words.decode(made[0, start:], skip_special_tokens=True) == wanted


def test_an_adapter_is_tried_as_peft_applies_it(folder, tmp_path, text):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    tuned = get_peft_model(llama(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"], lora_alpha=64,
                                               init_lora_weights=False))  # fmt: skip
    for config in tuned.peft_config.values():
        config.base_model_name_or_path = str(folder)
    tuned.save_pretrained(tmp_path / "adapter")
    words = tokenizer()
    ids = words(TEXT)["input_ids"]
    wanted = math.exp(nats(tuned, [words.eos_token_id, *ids]) / len(ids))
    plain = one(folder, text=text).fit.perplexity
    assert wanted != pytest.approx(plain, rel=1e-3)
    for reference in (tmp_path / "adapter", f"{folder}+{tmp_path / 'adapter'}"):
        assert one(reference, text=text).fit.perplexity == pytest.approx(wanted, rel=1e-4)


WORDS = st.tuples(st.integers(1, 1400), st.sampled_from([" ", "\n", "\n\n", "  \n "])).map(
    lambda word: "w" * (word[0] if word[0] > 1200 else word[0] % 60 + 1) + word[1]
)


@given(st.lists(WORDS, max_size=150))
def test_passages_are_the_text_in_parts_that_end_between_words(parts):
    text = "".join(parts)
    found = passages(text)
    assert "".join(found) == text
    assert all(right and left[-1].isspace() for left, right in itertools.pairwise(found))
    assert all(len(each) <= 1000 or not re.search(r"\s\S", each) for each in found)
    assert len(found) <= 2 * len(text) / 1000 + 1


def test_the_text_that_comes_with_python_is_english_prose():
    name, text = default_text()
    assert ".".join(map(str, sys.version_info[:2])) in name
    assert len(text) > 5000
    assert "Objects are Python" in " ".join(text.replace("*", "").split())


def test_a_sound_tokenizer_loses_nothing(folder):
    found = one(folder)
    trip = found.tokenizer
    assert (trip.lost, trip.split, trip.homeless, trip.chat) == ((), (), (), "ok")
    assert (trip.vocabulary, trip.rows) == (len(tokenizer()), 400)
    assert found.problems == []


def test_what_a_tokenizer_loses_is_named():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({"[UNK]": 0, "one": 1, "[SEP]": 2, "far": 9}, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    words = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", sep_token="[SEP]")
    trip = round_trip(words, rows=9)
    assert trip.lost == tuple(SAMPLES)
    assert trip.homeless == ("far",)
    assert trip.chat == "none"
    assert "1 of its tokens have no row among the model's 9: `far`" in trip.problems


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ raise_exception('no') }}", "it refuses a conversation: no"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "it leaves out what was said: `What is 2"),
        ("{% if %}", "it refuses a conversation"),
    ],
)
def test_a_chat_template_that_does_not_work_is_told(template, told):
    trip = round_trip(tokenizer(template), rows=400)
    assert told in trip.chat
    assert any(told in problem for problem in trip.problems)


def test_special_tokens_that_fall_apart_are_told():
    words = tokenizer()

    class Apart:
        """The tokenizer, as if it had forgotten that a token is special."""

        def __getattr__(self, name: str) -> Any:
            return getattr(words, name)

        def __call__(self, text: str, **options: Any) -> Any:
            return words(text.replace("<|end|>", "< |end|>"), **options)

    assert round_trip(Apart(), rows=400).split == ("<|end|>",)


def bert(folder: Path) -> None:
    from transformers import BertConfig, BertLMHeadModel

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = BertLMHeadModel(BertConfig(vocab_size=400, **sizes, is_decoder=False))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model.save_pretrained(folder)


def changed(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def without(folder: Path, *, name: str = "", nan: bool = False) -> None:
    """The weights without one of them, or with one that holds NaN."""
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    key = "model.layers.0.mlp.up_proj.weight"
    if nan:
        state[key][0, 0] = math.nan
    else:
        del state[name]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


def own_code(folder: Path) -> None:
    (folder / "modeling_own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    changed(folder, model_type="own", auto_map={"AutoConfig": "modeling_own.C",
                                                "AutoModelForCausalLM": "modeling_own.M"})  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (no_tokenizer, "there is no tokenizer"),
        (bert, "looks at what comes later: it is no causal language model"),
        (lambda f: without(f, name="lm_head.weight"), "are not there: `lm_head.weight`"),
        (lambda f: without(f, nan=True), "hold NaN or infinities: `model.layers.0.mlp.up_proj.weight`"),
        (lambda f: (f / "config.json").write_text("{"), "config.json"),
        (lambda f: (f / "config.json").unlink(), "no config that says what model this is"),
        (lambda f: changed(f, model_type="nope"), "the model can't be loaded"),
        (lambda f: changed(f, hidden_size=12), "the model can't be loaded"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "its tokenizer can't be loaded"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 20), "model.safetensors"),
        (own_code, "can't be loaded"),
        (shutil.rmtree, "no such file or folder"),
    ],
)
def test_what_is_no_sound_model_is_one_message(folder, damage, told):
    damage(folder)
    with pytest.raises(InputError) as caught:
        one(folder)
    assert told in str(caught.value)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"prompts": [""]}, "the prompt '' is empty"),
        ({"prompts": [" \n"]}, "is empty"),
        ({"prompts": []}, "`prompts` are"),
        ({"prompts": "one text"}, "`prompts` are 'one text'"),
        ({"tokens": 0}, "`tokens` is 0"),
        ({"tokens": CONTEXT}, f"{CONTEXT} more do not fit its {CONTEXT}"),
        ({"text": "no-such-file"}, "it can't be read"),
        ({"device": "abacus"}, "the device `abacus` can't be used"),
    ],
)
def test_what_can_not_be_asked_is_told(folder, options, told):
    with pytest.raises(InputError, match=told):
        one(folder, **options)


def test_a_text_of_no_letters_is_told(folder, text):
    for content, told in ((b" \n", "this text is empty"), (b"\xff\xfe", "no text in UTF-8")):
        text.write_bytes(content)
        with pytest.raises(InputError, match=told):
            one(folder, text=text)


def test_a_prompt_of_tokens_that_have_no_row_is_told(tmp_path):
    words = tokenizer()
    words.add_tokens(["<new>"])
    place = saved(tmp_path / "model", llama(rows=len(words) - 1), words)
    with pytest.raises(InputError, match=r"has the token `<new>`, number \d+, and the model has \d+ rows"):
        one(place, prompts=["a <new> word"])
    assert one(place).tokenizer.homeless == ("<new>",)


def test_transformers_that_is_not_there_is_told_with_its_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"plait\[hf\]"):
        one(folder)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["m", "--against", "a", "b"], ["m", "--against", "a", "--against", "b"]),
        (["m", "--prompt", "x", "y", "--json"], ["m", "--prompt", "x", "--prompt", "y", "--json"]),
        (["m", "--against=a", "b"], ["m", "--against=a", "--against", "b"]),
        (["m", "--prompt", "-x", "--tokens", "3"], ["m", "--prompt", "-x", "--tokens", "3"]),
        (["m", "--against"], ["m", "--against"]),
        (["--json", "m"], ["--json", "m"]),
    ],
)
def test_an_option_takes_all_words_up_to_the_next_one(words, wanted):
    assert repeated(words) == wanted


def test_the_command_shows_models_side_by_side(folder, tmp_path, text, capsys):
    other = saved(tmp_path / "other", llama(5))
    words = ["try", str(folder), "--against", str(other), "--prompt", "The cat", "Two", "--text", str(text)]
    with pytest.raises(SystemExit) as end:
        main([*words, "--tokens", "3", "--json"])
    assert end.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert [each["model"] for each in said["models"]] == [str(folder), str(other)]
    assert said["prompts"] == ["The cat", "Two"]
    with pytest.raises(SystemExit):
        main([*words, "--tokens", "3"])
    shown = capsys.readouterr().out
    for each in said["models"]:
        assert f"{each['fit']['perplexity']:.4g}" in shown
        assert all(line.strip() in shown for made in each["completions"] for line in made.split("\n"))
    assert "compare bits per byte" not in shown


def test_other_tokenizers_are_told_apart(folder, tmp_path, text, capsys):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(letters, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    other = saved(tmp_path / "letters", llama(rows=300), PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<eos>"))  # fmt: skip
    with pytest.raises(SystemExit):
        main(["try", str(folder), "--against", str(other), "--text", str(text), "--tokens", "2"])
    assert "tokenizers differ: compare bits per byte" in capsys.readouterr().out


@pytest.mark.slow
def test_a_real_model_writes_and_reads_english():
    from plait.tasks.suites import smollm2

    found = one(smollm2.model_folder(), prompts=["The capital of France is"], tokens=8)
    assert "Paris" in found.completions[0]
    assert found.tokenizer.problems == []
    assert found.fit.unknown == 0
    assert 0.5 < found.fit.bits_per_byte < 1.5

from __future__ import annotations

import json
from pathlib import Path

import jinja2
import pytest

from plait.errors import InputError
from plait.recipe import CHAT_TEMPLATES, read_chat_template, resolve_chat_template

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
]


def render(name: str, **more) -> str:
    template = jinja2.Environment().from_string(CHAT_TEMPLATES[name])
    return template.render(messages=MESSAGES, bos_token="<s>", eos_token="</s>", **more)


def test_named_templates_write_their_formats():
    assert render("chatml", add_generation_prompt=True) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    )
    assert render("llama3").startswith(
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user"
    )
    assert render("mistral") == "<s>[INST] Be brief.\n\nHi [/INST] Hello</s>[INST] Bye [/INST]"
    assert render("alpaca", add_generation_prompt=True) == (
        "Be brief.\n\n### Instruction:\nHi\n\n### Response:\nHello</s>\n\n"
        "### Instruction:\nBye\n\n### Response:\n"
    )
    assert render("exaone", add_generation_prompt=True) == (
        "[|system|]Be brief.[|endofturn|]\n[|user|]Hi\n[|assistant|]Hello[|endofturn|]\n"
        "[|user|]Bye\n[|assistant|]"
    )


def test_auto_takes_the_most_frequent_and_of_those_the_first():
    assert resolve_chat_template("auto", ["b", "a", None, " a\n", "c"]) == "a"
    assert resolve_chat_template("auto", ["b", "a"]) == "b"
    assert resolve_chat_template("auto", [None, ""]) is None


def test_names_text_and_nothing():
    assert resolve_chat_template("chatml", []) == CHAT_TEMPLATES["chatml"]
    assert resolve_chat_template("{{ x }}", []) == "{{ x }}"
    assert resolve_chat_template(None, ["a"]) is None


def test_what_is_neither_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="did you mean `chatml`"):
        resolve_chat_template("chat_ml", [])


def test_templates_are_found_wherever_models_keep_them(tmp_path: Path):
    assert read_chat_template(tmp_path) is None
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": [{"name": "default", "template": "D"}, {"name": "rag"}]}))
    assert read_chat_template(tmp_path) == "D"
    config.write_text(json.dumps({"chat_template": "C"}))
    assert read_chat_template(tmp_path) == "C"
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "B"}))
    assert read_chat_template(tmp_path) == "B"
    (tmp_path / "chat_template.jinja").write_text("A")
    assert read_chat_template(tmp_path) == "A"

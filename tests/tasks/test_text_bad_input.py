"""Rows, templates and tokenizers that make no text are one message that says which row."""

from __future__ import annotations

import re
from typing import Any

import pytest
from words import MARKED, TEMPLATE, tokenizer

from plait.errors import InputError
from plait.tasks import language_task

ASK = {"role": "user", "content": "the cat"}
SAY = {"role": "assistant", "content": "sat on the mat"}
STRICT = "{% if messages[0].role != 'user' %}{{ raise_exception('a user speaks first') }}{% endif %}"


def message(rows: list[Any], words: Any = None, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        language_task("t", rows, words or tokenizer(), **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": []}, "`messages` is empty"),
        ({"messages": "hello"}, "`messages` is 'hello'"),
        ({"messages": 3}, "`messages` is 3"),
        ({"messages": {"role": "user", "content": "a"}}, "`messages` is "),
        ({"messages": [ASK, "hello"]}, "`messages`, message 1 is 'hello'"),
        ({"messages": [{"content": "a"}]}, "`messages`, message 0 has no `role`"),
        ({"messages": [{"role": "user"}]}, "`messages`, message 0 has no `content`"),
        ({"messages": [{"role": "user", "content": None}]}, "message 0 has no `content`"),
        ({"prompt": [ASK], "completion": []}, "`completion` is empty"),
        ({"prompt": [{}], "completion": [SAY]}, "`prompt`, message 0 has no `role`"),
        ({"prompt": 5, "completion": 6}, "`prompt` is 5"),
        ({"text": None}, "a row has no `text`: it is None"),
        ({"text": 3}, "a row has a int as `text`"),
        ({"messages": None}, "a row has `messages`, which is None"),
        ({"prompt": "a"}, "a row has `prompt`"),
        ({"text": "a", "messages": [ASK]}, "a row has `messages` and also `text`"),
        ({"text": "a", "prompt": "b", "completion": "c"}, "`prompt` and `completion` and also `text`"),
    ],
)
def test_a_row_that_is_no_text_is_named(row, said):
    found = message([{"text": "a good row"}, row])
    assert found.startswith("task `t`, split `train`, row 1: ")
    assert said in found
    assert found.count("\n  hint: ") == 1


def test_columns_that_other_forms_leave_empty_are_no_second_form():
    rows = [{"text": "one two", "messages": None}, {"text": None, "messages": [ASK, SAY]}]
    assert len(language_task("t", rows, tokenizer()).split("train")) == 2


def test_what_a_template_raises_is_told():
    said = message([{"messages": [SAY, ASK]}], tokenizer(STRICT + TEMPLATE))
    assert "row 0: the chat template refuses the messages: a user speaks first" in said
    said = message([{"messages": [ASK]}], tokenizer("{{ 'a' + 1 }}"))
    assert "the chat template refuses the messages: can only concatenate str" in said
    assert "refuses the messages" in message([{"messages": [ASK]}], tokenizer("{% if %}"))


def test_what_is_no_tokenizer():
    rows = [{"text": "a b"}]
    with pytest.raises(InputError, match="task `t`: None is no tokenizer"):
        language_task("t", rows, None)
    with pytest.raises(InputError, match=re.escape('AutoTokenizer.from_pretrained("gpt2")')):
        language_task("t", rows, "gpt2")
    assert "a type is no tokenizer" in message(rows, type(tokenizer()))
    assert "a Tokenizer is no tokenizer" in message(rows, tokenizer().backend_tokenizer)


@pytest.mark.parametrize("template", [TEMPLATE, "{% for m in messages %}{{ m.content }}{% endfor %}"])
def test_templates_that_do_not_mark_what_the_assistant_says_are_refused(template):
    for row in ({"messages": [ASK, SAY]}, {"prompt": [ASK], "completion": [SAY]}):
        said = message([row], tokenizer(template), assistant_only_loss=True)
        assert "row 0: the chat template does not mark what the assistant says" in said
        assert "{% generation %}" in said
    assert len(language_task("t", [{"messages": [ASK, SAY]}], tokenizer(template)).split("train")) == 1


def test_marks_that_are_around_nothing_that_the_assistant_says_are_refused():
    nowhere = MARKED.replace("m.role == 'assistant'", "m.role == 'tool'")
    said = message([{"messages": [ASK, SAY]}], tokenizer(nowhere), assistant_only_loss=True)
    assert "row 0: the chat template marks none of what the assistant says" in said
    # where the assistant says nothing, there is nothing to mark
    rows = [{"messages": [ASK]}, {"messages": [ASK, SAY]}]
    assert len(language_task("t", rows, tokenizer(MARKED), assistant_only_loss=True).split("train")) == 1


def test_texts_have_no_assistant():
    row = {"prompt": "a", "completion": "b"}
    assert "only messages have an assistant" in message([row], assistant_only_loss=True)


def test_an_empty_completion_is_left_out_as_an_empty_text_is():
    void, full = {"prompt": "a", "completion": ""}, {"prompt": "a", "completion": " b c"}
    assert "no token counts" in message([void])
    task = language_task("t", [void, full], tokenizer())
    assert len(task.split("train")) == 1
    whole = language_task("t", [void, full], tokenizer(), completion_only_loss=False)
    assert len(whole.split("train")) == 2


def test_ends_alone_have_no_bits_per_byte():
    assert "no text counts" in message([{"text": "e"}])

"""Rows of TRL's formats become examples whose loss is that of what should count, packed or not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from words import MARKED, TEXTS, tokenizer

from plait.errors import InputError
from plait.tasks import IGNORED, NextToken, Ragged, check_packing, language_task
from plait.tasks._packing import best_fit

CHAT = [
    {"role": "user", "content": "the cat"},
    {"role": "assistant", "content": "sat on the mat"},
    {"role": "user", "content": "numbers 1 2"},
    {"role": "assistant", "content": "3 4 5"},
]


def rows(examples) -> Ragged:
    assert isinstance(examples, Ragged)
    return examples


def counted_text(task, words, row: int = 0) -> str:
    examples = rows(task.split("train"))
    return words.decode([label for label in examples.sequences["labels"][row] if label != IGNORED])


def llama(**options):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=400, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                         num_attention_heads=2, num_key_value_heads=1, **options)  # fmt: skip
    return LlamaForCausalLM(config)


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=400, n_embd=16, n_layer=2, n_head=2, n_positions=128, eos_token_id=1, bos_token_id=1
    )
    return GPT2LMHeadModel(config)


def total(model, task) -> torch.Tensor:
    """Nats and tokens of all training rows."""
    examples = task.split("train")
    batch = examples.batch(range(len(examples)))
    model.eval()
    with torch.no_grad():
        values, weights = NextToken()(task.meet(model, batch), batch)
    return torch.stack([values.sum(), weights.sum()])


def test_text_ends_with_the_end_and_all_but_the_first_token_counts():
    words = tokenizer()
    task = language_task("t", [{"text": text} for text in TEXTS], words)
    examples = rows(task.split("train"))
    for row, text in enumerate(TEXTS):
        ids = examples.sequences["input_ids"][row]
        assert words.decode(ids[:-1]) == text
        assert ids[-1] == words.eos_token_id
        labels = examples.sequences["labels"][row]
        assert labels == [IGNORED, *ids[1:]]


def test_bytes_are_those_of_the_text_without_its_first_token():
    words = tokenizer()
    task = language_task("t", [{"text": text} for text in TEXTS], words)
    examples = rows(task.split("train"))
    for row, text in enumerate(TEXTS):
        first = words.decode(examples.sequences["input_ids"][row][:1])
        assert int(examples.columns["bytes"][row]) == len(text.encode()) - len(first.encode())


def test_only_a_completion_counts_unless_the_prompt_is_asked_for():
    words = tokenizer()
    row = {"prompt": "The cat sat on", "completion": " the mat."}
    assert counted_text(language_task("t", [row], words), words) == " the mat.<|eos|>"
    whole = language_task("t", [row], words, completion_only_loss=False)
    assert counted_text(whole, words).endswith("cat sat on the mat.<|eos|>")
    assert int(rows(language_task("t", [row], words).split("train")).columns["bytes"]) == len(" the mat.")


def test_a_conversational_completion_counts_after_the_generation_prompt():
    words = tokenizer()
    task = language_task("t", [{"prompt": CHAT[:1], "completion": CHAT[1:2]}], words)
    assert counted_text(task, words) == "sat on the mat<|end|>\n"


def test_messages_count_whole_or_only_what_the_assistant_says():
    words = tokenizer(MARKED)
    whole = language_task("t", [{"messages": CHAT}], words)
    assert counted_text(whole, words).startswith("the cat<|end|>\n<|assistant|>sat on the mat")
    task = language_task("t", [{"messages": CHAT}], words, assistant_only_loss=True)
    assert counted_text(task, words) == "sat on the mat<|end|>\n3 4 5<|end|>\n"
    assert int(rows(task.split("train")).columns["bytes"]) == len("sat on the mat") + len("3 4 5") + 2


def test_what_is_too_long_loses_its_end_and_what_then_counts_for_nothing_is_left_out():
    words = tokenizer()
    data = [{"prompt": TEXTS[3], "completion": " Yes."}, {"prompt": "Two", "completion": " words"}]
    task = language_task("t", data, words, max_length=6)
    assert len(task.split("train")) == 1
    assert counted_text(task, words).startswith(" words")
    assert all(len(ids) <= 6 for ids in rows(task.split("train")).sequences["input_ids"])


def test_splits_keep_their_names():
    task = language_task(
        "t", {"train": [{"text": "a b"}], "test": [{"text": "c d"}, {"text": "e"}]}, tokenizer()
    )
    assert {name: len(split) for name, split in task.splits.items()} == {"train": 1, "test": 2}


def test_only_rows_for_training_are_packed():
    data = {"train": [{"text": "a b"}] * 4, "test": [{"text": "a b"}] * 4}
    task = language_task("t", data, tokenizer(), packing=True)
    assert {name: len(split) for name, split in task.splits.items()} == {"train": 1, "test": 4}
    assert task.split("train").batch([0]).keys() == task.split("test").batch([0]).keys()


@given(st.lists(st.integers(1, 20), min_size=1, max_size=60))
def test_packing_puts_every_document_in_one_row_that_has_room(lengths):
    bins = best_fit(lengths, 20)
    assert sorted(document for row in bins for document in row) == list(range(len(lengths)))
    used = [sum(lengths[document] for document in row) for row in bins]
    assert max(used) <= 20
    # no two rows would have fitted into one by their smallest fillings
    assert sum(amount <= 10 for amount in used) <= 1


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("make", [llama, gpt2])
def test_the_loss_of_packed_documents_is_that_of_the_documents(make, attention):
    words, data = tokenizer(), [{"text": text} for text in TEXTS]
    model = make().double()
    model.set_attn_implementation(attention)
    plain = language_task("t", data, words, max_length=100)
    packed = language_task("t", data, words, max_length=100, packing=True)
    assert len(packed.split("train")) < len(plain.split("train"))
    assert set(packed.split("train").batch([0])) == {"input_ids", "labels", "position_ids", "bytes"}
    torch.testing.assert_close(total(model, packed), total(model, plain), rtol=1e-6, atol=1e-6)
    sums = [rows(task.split("train")).columns["bytes"].sum() for task in (plain, packed)]
    assert sums[0] == sums[1]
    check_packing(model, range(10, 20))


def test_a_model_that_lets_packed_documents_see_each_other_is_refused():
    class Mixing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(400, 8)

        def forward(self, input_ids, position_ids, use_cache):
            return (self.embed(input_ids).cumsum(1),)

    with pytest.raises(InputError, match="Mixing lets documents of one row see each other"):
        check_packing(Mixing(), range(10, 20))
    with pytest.raises(InputError, match="takes no `position_ids`"):
        check_packing(torch.nn.Embedding(400, 8), range(10, 20))


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ([{"words": "a"}], {}, "row 0: a row has `words`"),
        ([{"text": "a b"}, 3], {}, "row 1 is a int"),
        ([{"text": ""}], {}, "no token counts"),
        ([], {}, "no token counts"),
        ({"text": 5}, {}, "`text` is no split\n  hint: splits are `train`, .* list of mappings"),
        (5, {}, "split `train`: 5 are no rows"),
        ({"train": "a b"}, {}, "split `train`: 'a b' are no rows"),
        ([{"text": "a b"}], {"packing": True, "max_length": None}, "packing needs `max_length`"),
        ([{"text": "a b"}], {"max_length": 1}, "`max_length` is 1"),
        ([{"text": "a b"}], {"assistant_only_loss": True}, "only messages have an assistant"),
        ([{"text": "a b"}], {"completion_only_loss": True}, "there is no completion"),
        ([{"prompt": "a", "completion": CHAT}], {}, "differ in kind"),
    ],
)
def test_rows_and_options_that_disagree_are_one_message(data, options, message):
    with pytest.raises(InputError, match=message):
        language_task("t", data, tokenizer(), **options)


def test_messages_need_a_template():
    with pytest.raises(InputError, match="no chat template"):
        language_task("t", [{"messages": CHAT}], tokenizer(None))

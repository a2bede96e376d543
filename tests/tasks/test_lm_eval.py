"""lm-eval on a folder, with task files and data that lie here."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from plait.cli import main
from plait.errors import InputError
from plait.tasks import compare, evaluate_lm

WORDS = ["<unk>", "<s>", "</s>", "many", "models", "one", "weave", "into", "the", "a", "of", "model"]
ROWS = [
    {"question": f"weave {WORDS[3 + k % 9]} into", "choices": ["one", "many models", "a"], "answer": k % 3}
    for k in range(24)
]
CHOICE = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: mcc, aggregation: matthews_corrcoef, higher_is_better: true}
"""
TEXT = """
task: tiny_text
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}} {{choices[answer]}}"
metric_list:
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
"""


def llama(folder: Path, seed: int) -> Path:
    """A Llama of two layers and twelve words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: k for k, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("lm")
    llama(root / "one", 0)
    llama(root / "two", 1)
    (root / "tasks").mkdir()
    data = root / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for name, text in (("choice", CHOICE), ("text", TEXT)):
        (root / "tasks" / f"{name}.yaml").write_text(text.replace("DATA", str(data)))
    return root


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


def plain(folder: Path) -> tuple[list[bool], list[float]]:
    """Which choices a model gets right, and the log-likelihood of each text, computed the plain way."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()

    def likelihood(context: list[str], rest: list[str]) -> float:
        tokens = torch.tensor([[WORDS.index(word) for word in context + rest]])
        with torch.no_grad():
            logits = model(tokens[:, :-1]).logits.log_softmax(-1)
        chosen = logits[0].gather(1, tokens[0, 1:, None])[:, 0]
        return float(chosen[-len(rest) :].sum())

    right, texts = [], []
    for row in ROWS:
        question = row["question"].split()
        found = [likelihood(question, choice.split()) for choice in row["choices"]]
        right.append(int(np.argmax(found)) == row["answer"])
        texts.append(likelihood(["<s>"], question + row["choices"][row["answer"]].split()))
    return right, texts


@pytest.mark.slow
def test_scores_are_those_of_a_plain_computation_and_intervals_are_ours(place):
    scores = evaluate_lm(
        {"one": place / "one", "two": place / "two"},
        [place / "tasks" / "choice.yaml", "tiny_text"],
        include=place / "tasks",
        bootstrap=400,
    )
    assert [row.key for row in scores][:4] == [
        ("one", "tiny_choice", "acc"),
        ("one", "tiny_choice", "mcc"),
        ("one", "tiny_text", "bits_per_byte"),
        ("one", "tiny_text", "word_perplexity"),
    ]
    texts = [f"{row['question']} {row['choices'][row['answer']]}" for row in ROWS]
    for name in ("one", "two"):
        right, nats = plain(place / name)
        accuracy = scores.score(name, "tiny_choice", "acc")
        assert accuracy.value == pytest.approx(np.mean(right))
        assert (accuracy.n, accuracy.suite, accuracy.higher_is_better) == (24, "lm-eval", True)
        assert accuracy.low < accuracy.value < accuracy.high
        size = sum(len(text.encode()) for text in texts)
        bits = scores.score(name, "tiny_text", "bits_per_byte")
        assert bits.value == pytest.approx(-sum(nats) / size / math.log(2), rel=1e-5)
        assert bits.low < bits.value < bits.high
        assert not bits.higher_is_better
        count = sum(len(text.split()) for text in texts)
        perplexity = scores.score(name, "tiny_text", "word_perplexity")
        assert perplexity.value == pytest.approx(math.exp(-sum(nats) / count), rel=1e-5)
        assert math.isnan(scores.score(name, "tiny_choice", "mcc").low)
    again = evaluate_lm(place / "one", place / "tasks" / "choice.yaml", bootstrap=400)
    assert [(d.metric, d.value) for d in compare(again, again)] == [("acc", 0), ("mcc", 0)]
    first = again.rows[0]
    assert (first.value, first.low) == (scores.rows[0].value, scores.rows[0].low)


@pytest.mark.slow
def test_the_command_prints_a_table_and_refuses_what_is_wrong(place, capsys, monkeypatch):
    def plait(*words: object) -> int:
        with pytest.raises(SystemExit) as caught:
            main(["evaluate", *map(str, words)])
        return int(caught.value.code or 0)

    monkeypatch.chdir(place)
    assert plait("one", "--lm-tasks", "tasks/choice.yaml", "--baseline", "one", "--max-drop", "0") == 0
    said = capsys.readouterr().out
    assert "one on lm-eval" in said
    assert re.search(r"^ *tiny_choice +acc +0\.\d+ +0\.\d+ +0\.\d+ +24", said, re.MULTILINE)
    assert plait("one", "--lm-tasks", "tasks/text.yaml", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["scores"]) == 2


@pytest.mark.slow
def test_bad_input_is_one_message(place, tmp_path):
    def message(*arguments, **settings) -> str:
        with pytest.raises(InputError) as caught:
            evaluate_lm(*arguments, **settings)
        return str(caught.value)

    tasks = place / "tasks"
    assert "there is no folder of a model" in message(place / "three", tasks / "choice.yaml")
    assert "there is no such task file" in message(place / "one", tasks / "chioce.yaml")
    said = message(place / "one", "tiny_chioce", include=tasks)
    assert "there is no task `tiny_chioce`\n  hint: did you mean `tiny_choice`?" in said
    for name, text, told in (
        ("empty.yaml", "", "this is no task file of lm-eval"),
        ("list.yaml", "- a", "this is no task file of lm-eval"),
        ("broken.yaml", "task: [", "this is no YAML"),
    ):
        folder = tmp_path / name.removesuffix(".yaml")
        folder.mkdir()
        (folder / name).write_text(text)
        assert told in message(place / "one", folder / name)
    (tmp_path / "gone.yaml").write_text(CHOICE.replace("DATA", str(tmp_path / "gone.jsonl")))
    said = message(place / "one", tmp_path / "gone.yaml")
    assert "gone.jsonl" in said

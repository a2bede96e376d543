"""A suite's YAML file: tasks of tables and datasets; whatever it gets wrong is told with its line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from plait.errors import InputError
from plait.tasks import NextToken, SquaredError, Unavailable, load_suite, suite_names

HEAD = "suite: mine\nbase: {call: 'test_suite_file:body'}\nwidth: 4\ntasks:\n"
CSV = "  - {name: t, classes: 2, input: x, data: {csv: t.csv, shares: {train: 0.5, test: 0.5}}}\n"


def body() -> nn.Module:
    return nn.Linear(1, 4)


@pytest.fixture
def write(tmp_path):
    """Text of a suite → its path, beside a table of ten rows in every format."""
    rows = [{"x": float(i), "label": i % 2, "person": f"p{i // 2}"} for i in range(10)]
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    columns = {"x": np.arange(10.0).reshape(10, 1), "label": np.arange(10) % 2}
    np.savez(tmp_path / "t.npz", **columns)

    def written(text: str) -> Path:
        path = tmp_path / "suite.yaml"
        path.write_text(text)
        return path

    return written


@pytest.mark.parametrize("kind", ["csv", "jsonl", "npz"])
def test_a_task_of_a_table(write, kind):
    suite = load_suite(write(HEAD + CSV.replace("csv", kind).replace("input: x", "input: x")))
    task = suite["t"]
    assert {name: len(split) for name, split in task.splits.items()} == {"train": 5, "test": 5}
    seen = torch.cat([task.splits[name].batch(range(5))["input"].flatten() for name in ("train", "test")])
    assert sorted(seen.tolist()) == list(range(10))
    batch = task.split("train").batch([0])
    assert batch["label"].dtype == torch.int64
    assert batch["label"].tolist() == [int(batch["input"].item()) % 2]
    assert suite.base().out_features == 4
    assert task.head is not None


def test_a_table_is_cut_by_source(write):
    data = "{csv: t.csv, shares: {train: 0.6, test: 0.4}, source: person}"
    suite = load_suite(write(HEAD + f"  - {{name: t, classes: 2, input: x, data: {data}}}\n"))
    people = {
        name: {int(x) // 2 for x in split.batch(range(len(split)))["input"].flatten()}
        for name, split in suite["t"].splits.items()
    }
    assert people["train"] | people["test"] == set(range(5))
    assert not people["train"] & people["test"]


def test_splits_may_have_files_of_their_own_and_those_without_labels_need_none(write, tmp_path):
    (tmp_path / "raw.csv").write_text("x\n1\n2\n")
    data = "{csv: {train: t.csv, calibration: raw.csv}}"
    suite = load_suite(write(HEAD + f"  - {{name: t, classes: 2, input: x, data: {data}}}\n"))
    assert list(suite["t"].split("calibration").batch([0])) == ["input"]


def test_a_regression(write):
    text = HEAD + CSV.replace("classes: 2", "loss: squared_error")
    task = load_suite(write(text))["t"]
    assert isinstance(task.loss, SquaredError)
    assert task.metric.name == "mean squared error"
    assert task.split("train").batch([0])["label"].dtype == torch.float32


def test_a_dataset_that_lies_on_this_disk(write, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "t.csv").rename(tmp_path / "set" / "train.csv")
    data = f"{{dataset: '{tmp_path / 'set'}', parts: {{train: 'train[:60%]', test: 'train[60%:]'}}}}"
    suite = load_suite(write(HEAD + f"  - {{name: t, classes: 2, input: x, data: {data}}}\n"))
    assert {name: len(split) for name, split in suite["t"].splits.items()} == {"train": 6, "test": 4}
    assert suite["t"].split("test").batch([0])["input"].tolist() == [6.0]


def test_text_becomes_tokens_with_the_bytes_they_stand_for(write, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.WordLevel({"one": 0, "two": 1, "three": 2, "?": 3}, unk_token="?"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=plain).save_pretrained(tmp_path / "words")
    (tmp_path / "text.jsonl").write_text('{"x": "one two three"}\n{"x": "two one"}\n')
    head = "suite: s\nbase: {call: 'test_suite_file:body'}\nreads: text\nprocessor: words\nmeet: logits\n"
    task = "tasks:\n  - {name: t, input: x, loss: next_token, data: {jsonl: {train: text.jsonl}}}\n"
    made = load_suite(write(head + task))["t"]
    assert isinstance(made.loss, NextToken)
    assert made.metric.name == "bits per byte"
    batch = made.split("train").batch([0, 1])
    assert batch["input_ids"].tolist() == [[0, 1, 2], [1, 0, 0]]
    assert batch["labels"].tolist() == [[0, 1, 2], [1, 0, -100]]
    assert batch["bytes"].tolist() == [len("two three"), len("one")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + CSV.replace("classes", "clases"), r"suite\.yaml:5: unknown key `clases`(.|\n)*`classes`"),
        (HEAD + CSV.replace("classes: 2, ", ""), "needs `classes`"),
        (HEAD + CSV.replace("csv: t.csv", "csv: t.csv, npz: t.npz"), "exactly one of `csv`"),
        (HEAD + CSV.replace(", shares: {train: 0.5, test: 0.5}", ""), "needs `shares`"),
        (HEAD + CSV.replace("train: 0.5", "tran: 0.5"), "`tran` is no split"),
        (HEAD + CSV.replace("train: 0.5", "train: 0.7"), "sum to 1"),
        (HEAD + CSV.replace("input: x", "input: y"), "there is no column `y`"),
        (HEAD + CSV.replace("classes: 2", "classes: 1"), "label 1 is out of range: the head has 1 output"),
        (HEAD + CSV.replace("input: x", "input: person"), "column"),
        (HEAD + CSV + CSV, "two tasks have one name"),
        (HEAD.replace("width: 4\n", "") + CSV, "needs `width`"),
        (HEAD.replace("call: 'test_suite_file:body'", "") + CSV, "needs `model`"),
        (HEAD, "`tasks`"),
        ("suite: [", "not valid YAML"),
    ],
)
def test_what_a_file_gets_wrong_is_told(write, text, message):
    with pytest.raises(InputError, match=message):
        load_suite(write(text))


def test_a_function_that_is_not_there_is_told_when_the_base_is_made(write):
    suite = load_suite(write(HEAD.replace("body'", "bodies'") + CSV))
    with pytest.raises(InputError, match="`test_suite_file:bodies`"):
        suite.base()


def test_the_suite_goes_on_without_a_file_that_is_not_there(write):
    text = HEAD + CSV + CSV.replace("name: t", "name: u").replace("t.csv", "gone.csv")
    suite = load_suite(write(text))
    assert [task.name for task in suite.tasks] == ["t"]
    assert "there is no file `gone.csv`" in suite.missing["u"]


@pytest.mark.parametrize("name", ["clip-8", "clip-14", "clip-20", "mergebench"])
def test_suites_of_the_hub_say_what_cannot_be_had(name, monkeypatch):
    """They ship with plait; without the hub, each is one message that names its data."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert name in suite_names()
    with pytest.raises(Unavailable, match="hub"):
        load_suite(name)


def test_a_suite_that_is_not_there_is_told_with_the_nearest():
    with pytest.raises(InputError, match="did you mean `glyphs`"):
        load_suite("gylphs")


@pytest.mark.parametrize(
    ("label", "message"), [("0.5", r"`0\.5` is no class"), ("cat", "labels are no numbers")]
)
def test_labels_that_are_no_classes_are_refused(tmp_path, write, label, message):
    rows = [f"{i},{i % 2}" for i in range(9)] + [f"9,{label}"]
    (tmp_path / "odd.csv").write_text("\n".join(["x,label", *rows]) + "\n")
    with pytest.raises(InputError, match=message):
        load_suite(write(HEAD + CSV.replace("t.csv", "odd.csv")))

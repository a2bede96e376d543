"""`plait evaluate`, as its users meet it."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from plait.cli import main
from plait.errors import InputError
from plait.tasks import Suite, Task

FOLDER = Path(__file__).resolve().parent


def body() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(64, 8)


def load_suite(name: str, data: object = None) -> Suite:
    """The suite `tiny`: digits, odd or even, with one task that can't be had."""
    from sklearn.datasets import load_digits

    if name != "tiny":
        raise InputError(f"there is no suite `{name}`", hint="did you mean `tiny`?")
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype("float32")
    heads = [nn.Linear(8, count) for count in (10, 2)]
    with torch.no_grad():
        for seed, head in enumerate(heads):
            head.weight.copy_(torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(seed)))
            head.bias.zero_()
    tasks = (
        Task("digit", {"test": (X[1500:], y[1500:])}, head=heads[0]),
        Task("odd", {"test": (X[1500:], y[1500:] % 2)}, head=heads[1], semi_synthetic=True),
    )
    return Suite("tiny", tasks, body, {"kuzushiji": "its package can't be had"})


@pytest.fixture(autouse=True)
def _suites(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("plait.tasks.load_suite", load_suite, raising=False)


def plait(*words: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    return int(caught.value.code or 0)


@pytest.fixture
def old() -> Path:
    """A body that is right for the task `digit` more often than chance."""
    torch.manual_seed(0)
    task = load_suite("tiny")["digit"]
    network = task.with_body(body())
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
    assert plait("evaluate", old, new, "--suite", "tiny") == 0
    said = capsys.readouterr().out
    for model in (old, new):
        assert f"{model} on tiny" in said
    assert re.search(r"^ *digit +accuracy +0\.\d+ +0\.\d+ +0\.\d+ +297", said, re.MULTILINE)
    assert len(re.findall(r"^ *odd † +accuracy", said, re.MULTILINE)) == 2
    assert len(re.findall(r"^ *average +accuracy", said, re.MULTILINE)) == 2
    assert "† semi-synthetic" in said
    assert "missing: `kuzushiji`: its package can't be had" in said


def test_json_is_what_python_gives(old, capsys):
    from plait.tasks import evaluate

    assert plait("evaluate", old, "--suite", "tiny", "--json", "--seed", 4, "--bootstrap", 200) == 0
    said = json.loads(capsys.readouterr().out)
    wanted = evaluate(str(old), load_suite("tiny"), seed=4, bootstrap=200)
    assert said == json.loads(wanted.to_json())
    assert [row["semi_synthetic"] for row in said["scores"]] == [False, True]


def test_options_choose_tasks_types_and_heads(old, tmp_path, capsys):
    for name in ("a", "digit"):
        (tmp_path / "heads" / name).mkdir(parents=True)
        torch.manual_seed(5)
        save_file(nn.Linear(8, 10).state_dict(), tmp_path / "heads" / name / "head.safetensors")
    found = {}
    words = ("--suite", "tiny", "--task", "digit", "--json", "--batch-size", 50, "--threads", 1)
    for name, more in {
        "own": (),
        "float64": ("--dtype", "float64", "--device", "cpu"),
        "one": ("--heads", f"digit={tmp_path / 'heads' / 'a'}"),
        "folder": ("--heads", tmp_path / "heads"),
    }.items():
        assert plait("evaluate", old, *words, *more) == 0
        said = json.loads(capsys.readouterr().out)
        assert [row["task"] for row in said["scores"]] == ["digit"]
        assert said["missing"] == {}
        found[name] = said["scores"][0]["value"]
    assert found["own"] == pytest.approx(found["float64"], abs=1 / 297)
    assert found["one"] == found["folder"] != found["own"]


def test_a_regression_is_told_and_status_3(old, new, capsys):
    words = ("--suite", "tiny", "--max-drop", "0.3")
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
    assert plait("evaluate", new, "--suite", "tiny", "--baseline", old) == 0
    capsys.readouterr()
    assert plait("evaluate", new, *words, "--baseline", old, "--json") == 3
    said = json.loads(capsys.readouterr().out)
    assert [each["task"] for each in said["regressions"]] == ["digit"]
    assert [each["task"] for each in said["differences"]] == ["digit", "odd"]


def test_a_baseline_may_be_a_table_of_before(old, new, tmp_path, capsys):
    assert plait("evaluate", old, "--suite", "tiny", "--json") == 0
    table = tmp_path / "scores.json"
    table.write_text(capsys.readouterr().out)
    words = ("--suite", "tiny", "--max-drop", "0.3", "--baseline", table)
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
    assert plait("evaluate", folder, "--suite", "tiny", "--baseline", old, "--max-drop", "1") == 3
    said = capsys.readouterr()
    assert re.search(r"^ *digit +accuracy +nan +– +– +297", said.out, re.MULTILINE)
    assert f"`{folder}` gave NaN for 297 of 297 examples of `odd`" in said.out
    assert "accuracy nan" in said.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--suite", "tinny"), "there is no suite `tinny`\n  hint: did you mean `tiny`?"),
        (("--suite", "tiny", "--split", "tset"), "`tset` is no split\n  hint: did you mean `test`?"),
        (("--suite", "tiny", "--split", "train"), "there is no split `train`"),
        (("--suite", "tiny", "--task", "odds"), "there is no task `odds`\n  hint: did you mean `odd`?"),
        (("--suite", "tiny", "--task", "kuzushiji"), "`kuzushiji` is missing: its package can't be had"),
        (("--suite", "tiny", "--dtype", "float23"), "--dtype: `float23` is no type"),
        (("--suite", "tiny", "--device", "gpu"), "there is no device `gpu`"),
        (("--suite", "tiny", "--max-drop", "0.1"), "give --baseline"),
        (("--suite", "tiny", "--baseline", "./gone"), "./gone: no such file or folder"),
        (("--suite", "tiny", "--heads", "odd=./gone"), "there is no head"),
        (("--suite", "tiny", "--heads", "a", "--heads", "odd=b"), "`a` names no task"),
        (("--suite", "tiny", "--heads", "ood=./gone"), "there is no task `ood`"),
        ((), "--suite NAME, or --lm-tasks FILE"),
        (("--suite", "tiny", "--lm-tasks", "a.yaml"), "--suite NAME, or --lm-tasks FILE"),
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
    assert plait("evaluate", other, "--suite", "tiny") == 2
    said = capsys.readouterr().err
    assert f"{other}: this is no checkpoint of the Linear that it should fill" in said
    assert "`weight` is [9, 64] and not [8, 64]" in said


def test_a_process_ends_with_status_3(old, new):
    code = (
        f"import sys; sys.path.insert(0, {str(FOLDER)!r})\n"
        "import plait.tasks, test_evaluate_command\n"
        "plait.tasks.load_suite = test_evaluate_command.load_suite\n"
        "from plait.cli import main\nmain()"
    )
    words = [str(new), "--suite", "tiny", "--baseline", str(old), "--max-drop", "0.3"]
    command = [sys.executable, "-c", code, "evaluate", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 3
    assert done.stderr.startswith("plait: regression: ")
    assert "Traceback" not in done.stderr

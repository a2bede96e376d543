"""Scores of models on a suite, against scores computed the plain way."""

from __future__ import annotations

import json
import math

import digit_tasks
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from sklearn.metrics import accuracy_score, f1_score, mean_squared_error
from torch import nn

import plait
from plait.tasks import (
    ByKeywords,
    Items,
    NextToken,
    Ragged,
    Subset,
    Task,
    bits_per_byte,
    evaluate,
    read_scores,
)


@pytest.fixture(scope="module")
def suite():
    return digit_tasks.suite()


@pytest.fixture(scope="module")
def experts(suite):
    return {task.name: digit_tasks.trained(suite, task.name) for task in suite.tasks}


def outputs(network: nn.Module, task: Task) -> np.ndarray:
    """The test split's outputs, in one pass."""
    with torch.no_grad():
        return network.eval()(task.split("test").batch(range(len(task.split("test"))))).numpy()


def test_scores_are_scikit_learns(suite, experts):
    scores = plait.evaluate({name: e.body for name, e in experts.items()}, suite, heads=heads(experts))
    for name, expert in experts.items():
        labels = suite[name].split("test").columns["label"].numpy()
        given = outputs(expert, suite[name])
        said = given.argmax(1)
        plain = {
            "digit": lambda y=labels, s=said: f1_score(y, s, average="macro", labels=range(10)),
            "odd": lambda y=labels, s=said: accuracy_score(y, s),
            "bright": lambda y=labels, g=given: mean_squared_error(y, g),
        }[name]()
        row = scores.score(name, name)
        assert row.value == pytest.approx(plain, rel=1e-6)
        assert row.n == 297
        assert row.low < row.value < row.high
    assert [row.semi_synthetic for row in scores][:3] == [False, True, False]
    assert [row.higher_is_better for row in scores][:3] == [True, True, False]


def heads(experts):
    return {name: expert.head for name, expert in experts.items()}


def test_a_headed_model_is_scored_with_the_head_that_it_brings(suite, experts):
    own = evaluate(experts["odd"], suite["odd"]).rows[0]
    assert (
        own.value
        == evaluate(experts["odd"].body, suite["odd"], heads=heads({"odd": experts["odd"]})).rows[0].value
    )
    assert own.value > evaluate(experts["odd"].body, suite["odd"]).rows[0].value
    with pytest.raises(plait.errors.InputError, match="brings a head"):
        evaluate(experts["odd"], suite)


def test_heads_come_from_folders(suite, experts, tmp_path):
    for name, expert in experts.items():
        (tmp_path / name).mkdir()
        save_file(expert.head.state_dict(), tmp_path / name / "head.safetensors")
    wanted = evaluate(experts["digit"].body, suite, heads=heads(experts)).to_dict()
    assert evaluate(experts["digit"].body, suite, heads=tmp_path).to_dict() == wanted
    some = {
        "odd": tmp_path / "odd" / "head.safetensors",
        "digit": tmp_path,
        "bright": str(tmp_path / "bright"),
    }
    assert evaluate(experts["digit"].body, suite, heads=some).to_dict() == wanted


def test_modules_checkpoints_state_dicts_and_paths_are_scored_alike(suite, experts, tmp_path):
    body = experts["odd"].body
    save_file(body.state_dict(), tmp_path / "model.safetensors")
    forms = {
        "module": body,
        "checkpoint": plait.open(tmp_path),
        "state": body.state_dict(),
        "folder": tmp_path,
        "file": str(tmp_path / "model.safetensors"),
    }
    scores = evaluate(forms, suite)
    assert scores.models == list(forms)
    for task in suite.tasks:
        assert len({(scores.score(m, task.name).value, scores.score(m, task.name).low) for m in forms}) == 1


def test_models_are_named_by_what_they_are(suite, tmp_path):
    save_file(suite.base().state_dict(), tmp_path / "model.safetensors")
    named = evaluate([suite.base(), suite.base(), tmp_path], suite, bootstrap=0)
    assert named.models == ["Sequential 1", "Sequential 2", str(tmp_path)]


@settings(max_examples=15)
@given(size=st.integers(1, 300), seed=st.integers(0, 5))
def test_scores_do_not_depend_on_the_batch_size(size, seed):
    suite = digit_tasks.suite()
    model = digit_tasks.body(seed).double()
    wanted = evaluate(model, suite, dtype=torch.float64, bootstrap=50)
    found = evaluate(model, suite, dtype=torch.float64, bootstrap=50, batch_size=size)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose([ours.value, ours.low], [theirs.value, theirs.low], rtol=1e-12)


def test_the_model_is_as_it_was(suite):
    model = suite.base()
    model.train()
    model[3].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    threads = torch.get_num_threads()
    first = evaluate(model, suite, dtype=torch.float64, threads=1)
    assert [module.training for module in model] == [True, True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert next(model.parameters()).dtype == torch.float32
    assert next(model.parameters()).grad is None
    assert torch.get_num_threads() == threads
    assert evaluate(model, suite, dtype=torch.float64).to_dict() == first.to_dict()


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-6), (torch.bfloat16, 0.05)])
def test_types_give_the_scores_of_float32_within_their_rounding(suite, experts, dtype, close):
    body = experts["bright"].body
    wanted = evaluate(body, suite, heads=heads(experts)).score("Sequential", "bright").value
    found = evaluate(body, suite, heads=heads(experts), dtype=dtype).score("Sequential", "bright").value
    assert found == pytest.approx(wanted, rel=close)
    assert found != wanted
    checkpoint = evaluate(body.state_dict(), suite, heads=heads(experts), dtype=dtype)
    assert checkpoint.score("state dict", "bright").value == found


def test_missing_tasks_are_told(experts):
    suite = digit_tasks.suite({"kuzushiji": "its package can't be had"})
    scores = evaluate(experts["odd"].body, suite)
    assert scores.missing == {"kuzushiji": "its package can't be had"}
    assert "missing: `kuzushiji`: its package can't be had" in scores.to_markdown()
    assert json.loads(scores.to_json())["missing"] == dict(scores.missing)


def test_nan_is_a_score_of_nan_and_told(suite, experts):
    broken = digit_tasks.body()
    with torch.no_grad():
        broken[3].bias[0] = math.nan
    scores = evaluate({"fine": experts["odd"].body, "broken": broken}, suite)
    for task in suite.tasks:
        row = scores.score("broken", task.name)
        assert math.isnan(row.value)
        assert math.isnan(row.low)
        assert row.nan == row.n == 297
        assert not math.isnan(scores.score("fine", task.name).value)
    assert "`broken` gave NaN for 297 of 297 examples of `digit`" in scores.to_markdown()
    assert json.loads(scores.to_json())["scores"][3]["value"] is None


def test_one_example_of_nan_makes_the_score_nan(suite):
    X, y = digit_tasks.pictures()
    X[7, 0] = math.nan
    task = Task("odd", {"test": (X[:50], y[:50] % 2)}, head=digit_tasks.head(2))
    row = evaluate(suite.base(), task).rows[0]
    assert math.isnan(row.value)
    assert (row.nan, row.n) == (1, 50)


def test_sequences_are_scored_whatever_they_are_padded_with():
    class Bigram(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.table = nn.Embedding(256, 256)

        def forward(self, input_ids):
            return {"logits": self.table(input_ids)}

    texts = [list(f"{'many models ' * (place % 5 + 1)}{place}".encode()) for place in range(23)]
    examples = Ragged({"input_ids": texts, "labels": texts}, padding={"labels": -100})
    task = Task("text", {"test": examples}, NextToken(), bits_per_byte(), meet=ByKeywords())
    model = Bigram().double()
    nats, count = 0.0, 0
    for text in texts:
        logits = model.table(torch.tensor(text[:-1])).log_softmax(-1)
        nats -= float(logits.gather(1, torch.tensor(text[1:])[:, None]).detach().sum())
        count += len(text) - 1
    for size in (1, 7, 100):
        row = evaluate(model, task, batch_size=size).rows[0]
        assert row.value == pytest.approx(nats / math.log(2) / count, rel=1e-12)
    evidence = evaluate(model, task).evidence["Bigram", "text", "bits per byte"]
    assert evidence.numbers[:, 1].tolist() == [len(text) - 1 for text in texts]


def test_datasets_and_subsets_are_scored_like_columns(suite):
    whole = suite["odd"].split("test")
    pairs = [(whole.columns["input"][row], int(whole.columns["label"][row])) for row in range(len(whole))]
    forms = [Items(pairs), Subset(whole, np.arange(len(whole)))]
    wanted = evaluate(suite.base(), suite["odd"]).rows[0]
    for form in forms:
        task = Task("odd", {"test": form}, head=suite["odd"].head)
        found = evaluate(suite.base(), task).rows[0]
        assert (found.value, found.low, found.high) == (wanted.value, wanted.low, wanted.high)


def test_tables(suite, experts):
    scores = evaluate({"a": experts["odd"].body, "b": suite.base()}, suite, heads=heads(experts))
    frame = scores.to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert frame.shape == (6, 11)
    assert frame.groupby("model").value.count().to_dict() == {"a": 3, "b": 3}
    text = scores.to_markdown()
    assert text.splitlines()[0] == "| task | metric | a | b |"
    assert "| odd † | accuracy | " in text
    assert "† semi-synthetic" in text
    assert str(scores) == text
    again = read_scores(scores.to_json())
    assert again.rows == scores.rows
    assert again.data == scores.data
    assert (again.seed, again.bootstrap) == (0, 1000)


def test_averages_are_over_tasks_and_shares_of_experts(suite, experts):
    bodies = {name: expert.body for name, expert in experts.items()}
    scores = evaluate(bodies | {"base": suite.base()}, suite, heads=heads(experts))
    means = {(a.model, a.metric): a for a in scores.averages()}
    assert means["base", "accuracy"].value == scores.score("base", "odd").value
    assert means["base", "accuracy"].semi_synthetic == 1
    for model in scores.models:
        (found,) = [a for a in scores.averages(scores) if a.model == model]
        own = {task: scores.score(task, task).value for task in experts}
        here = {task: scores.score(model, task).value for task in experts}
        shares = [here["digit"] / own["digit"], here["odd"] / own["odd"], own["bright"] / here["bright"]]
        assert found.value == pytest.approx(np.mean(shares))
        assert found.tasks == 3
        assert [found] == [a for a in scores.averages(own) if a.model == model]
        assert found.low < found.value < found.high
    with pytest.raises(plait.errors.InputError, match="task `digit` has no expert"):
        scores.averages({"digits": 1.0})

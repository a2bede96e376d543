"""A mixture of tasks: what a batch holds, what it costs, how it is scored."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from plait.checkpoint import load_into, open_model
from plait.errors import InputError
from plait.tasks import (
    Columns,
    CrossEntropy,
    Headed,
    Heads,
    NextToken,
    Ragged,
    SquaredError,
    Task,
    accuracy,
    as_examples,
    bits_per_byte,
    evaluate,
    macro_f1,
    mean_squared_error,
    mixture,
    save_network,
)


def classified(name: str, count: int, classes: int, *, test: int = 0, metric: object = None) -> Task:
    random = torch.Generator().manual_seed(count)
    splits = {
        split: Columns(
            {
                "input": torch.randn(rows, 5, generator=random),
                "label": torch.randint(classes, (rows,), generator=random),
            }
        )
        for split, rows in (("train", count), ("test", test))
        if rows
    }
    with torch.random.fork_rng():
        torch.manual_seed(classes)
        head = nn.Linear(4, classes)
    return Task(name, splits, head=head, metric=metric or accuracy())


def body() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(5, 4)


@settings(max_examples=50)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    data=st.data(),
)
def test_an_epoch_holds_every_example_in_the_shares_asked_for(counts: list[int], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(0.1, 10), min_size=len(counts), max_size=len(counts)))
    tasks = [classified(f"t{i}", count, 2 + i) for i, count in enumerate(counts)]
    examples = mixture(tasks, weights).split("train")
    batch = examples.batch(range(len(examples)))
    for place, (task, count) in enumerate(zip(tasks, counts, strict=True)):
        own = batch["input"][batch["task"] == place]
        held = task.split("train").batch(range(count))["input"]
        assert {row.numpy().tobytes() for row in own} == {row.numpy().tobytes() for row in held}
        wanted = len(examples) * weights[place] / sum(weights)
        assert abs(len(own) - wanted) <= 1 + len(counts) * weights[place] / sum(weights)


def test_without_weights_it_is_one_task_after_the_other() -> None:
    one, two = classified("one", 6, 3), classified("two", 4, 2)
    examples = mixture([one, two]).split("train")
    batch = examples.batch([9, 0, 6, 5])
    assert batch["task"].tolist() == [1, 0, 1, 0]
    wanted = torch.cat([one.split("train").batch([0, 5])["input"], two.split("train").batch([0, 3])["input"]])
    assert torch.equal(batch["input"][[1, 3, 2, 0]], wanted)


def test_its_loss_is_that_of_each_example_s_own_task() -> None:
    tasks = [classified("one", 6, 3), classified("two", 9, 7)]
    whole = mixture(tasks)
    model = whole.with_body(body())
    rows = [14, 3, 7, 0, 6]
    values, weights = whole.loss(
        whole.outputs(model, whole.split("train").batch(rows)), whole.split("train").batch(rows)
    )
    for row, value in zip(rows, values, strict=True):
        task, own = (tasks[0], row) if row < 6 else (tasks[1], row - 6)
        held = task.split("train")
        assert task.head is not None
        logits = task.head(body()(held.columns["input"][own]))  # type: ignore[attr-defined]
        wanted = F.cross_entropy(logits, held.columns["label"][own])  # type: ignore[attr-defined]
        assert value.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert weights.tolist() == [1.0] * 5


def test_a_head_learns_from_its_own_examples_alone() -> None:
    whole = mixture([classified("one", 6, 3), classified("two", 9, 7)])
    model = whole.with_body(body())
    batch = whole.split("train").batch([6, 7, 8])
    whole.loss(whole.outputs(model, batch), batch)[0].sum().backward()
    assert isinstance(model, Headed)
    assert isinstance(model.head, Heads)
    assert all(not p.grad.any() for p in model.head.of("one").parameters())  # type: ignore[union-attr]
    assert all(p.grad.any() for p in model.head.of("two").parameters())  # type: ignore[union-attr]


def test_its_score_is_the_mean_of_its_tasks_scores() -> None:
    tasks = [classified("one", 6, 3, test=50), classified("two", 9, 7, test=31, metric=macro_f1(7))]
    whole = mixture(tasks)
    model = whole.with_body(body())
    own = [evaluate(Headed(model.body, t.head, t.meet), t, bootstrap=0).rows[0].value for t in tasks]  # type: ignore[arg-type]
    found = evaluate(model, whole, bootstrap=20).rows[0]
    assert found.value == pytest.approx(np.mean(own))
    assert found.metric == "mean of accuracy, macro F1"
    assert found.low <= found.value <= found.high


def test_a_model_of_a_mixture_is_scored_on_each_of_its_tasks() -> None:
    tasks = [classified("one", 6, 3, test=50), classified("two", 9, 7, test=31)]
    model = mixture(tasks).with_body(body())
    for task in tasks:
        alone = task.with_body(body())
        assert (
            evaluate(model, task, bootstrap=0).rows[0].value
            == evaluate(alone, task, bootstrap=0).rows[0].value
        )


def test_heads_of_a_saved_mixture_are_found_whatever_their_tasks_are_called(tmp_path: Path) -> None:
    tasks = [classified("a/b", 6, 3, test=5), classified("..", 9, 7, test=4)]
    model = mixture(tasks).with_body(body())
    save_network(model, tmp_path / "model")
    assert not list(tmp_path.glob("*.safetensors"))
    for task in tasks:
        loaded = load_into(body(), open_model(tmp_path / "model"))
        found = evaluate(loaded, task, heads={task.name: tmp_path / "model"})
        wanted = evaluate(model, task)
        assert found.rows[0].value == wanted.rows[0].value
        with pytest.raises(InputError, match="there is no head"):
            evaluate(loaded, task, heads={task.name: tmp_path})


def test_a_split_is_of_the_tasks_that_have_it() -> None:
    whole = mixture([classified("one", 6, 3), classified("two", 9, 7, test=4)])
    batch = whole.split("test").batch(range(4))
    assert len(whole.split("test")) == 4
    assert batch["task"].tolist() == [1] * 4
    model = whole.with_body(body())
    score = evaluate(model, whole, bootstrap=0).rows[0].value
    assert score == evaluate(model, classified("two", 9, 7, test=4), bootstrap=0).rows[0].value


def test_sequences_are_filled_up_as_their_tasks_say() -> None:
    def text(name: str, ids: list[list[int]]) -> Task:
        examples = Ragged({"input_ids": ids, "labels": ids}, padding={"input_ids": 9, "labels": -100})
        return Task(name, {"train": examples}, loss=NextToken(), metric=bits_per_byte())

    whole = mixture([text("one", [[1, 2, 3, 4]]), text("two", [[5], [6, 7]])])
    batch = whole.split("train").batch([1, 0, 2])
    assert batch["input_ids"].tolist() == [[5, 9, 9, 9], [1, 2, 3, 4], [6, 7, 9, 9]]
    assert batch["labels"][0].tolist() == [5, -100, -100, -100]
    assert whole.loss == NextToken()
    assert whole.head is None


def test_losses_may_differ() -> None:
    numbers = Task(
        "numbers",
        {"train": as_examples((np.ones((3, 5), np.float32), np.zeros(3, np.int64)))},
        loss=SquaredError(),
        metric=mean_squared_error(),
        head=nn.Linear(4, 1),
    )
    classes = classified("classes", 4, 3, metric=None)
    with pytest.raises(InputError, match="measured in opposite ways"):
        mixture([numbers, classes])
    smoothed = Task("s", classes.splits, loss=CrossEntropy(label_smoothing=0.3), head=classes.head)
    whole = mixture([classes, smoothed])
    batch = whole.split("train").batch([0, 4])
    values, _ = whole.loss(whole.outputs(whole.with_body(body()), batch), batch)
    assert values[0].item() != pytest.approx(values[1].item())


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([1.0], "1 weights for 2 tasks"),
        ([1.0, 0], "the weight of `two` is 0"),
        ([math.nan, 1], "the weight of `one` is nan"),
        ([True, 1], "the weight of `one` is True"),
        (["x", 1], "the weight of `one` is 'x'"),
        ([1e-300, 1e300], "too far"),
    ],
)
def test_weights_that_are_no_shares_are_refused(weights: list[float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        mixture([classified("one", 6, 3), classified("two", 9, 7)], weights)


def test_tasks_that_cannot_be_mixed_are_refused() -> None:
    one = classified("one", 6, 3)
    with pytest.raises(InputError, match="needs a task"):
        mixture([])
    with pytest.raises(InputError, match="two tasks are called `one`"):
        mixture([one, one])
    floats = Task("two", {"train": as_examples((np.ones((2, 5)), np.ones(2)))}, loss=SquaredError())
    with pytest.raises(InputError, match="`label` int64 of 1 dimensions"):
        mixture([one, floats])
    with pytest.raises(InputError, match="column `task` already"):
        mixture([mixture([one, classified("two", 4, 2)], name="both")])
    with pytest.raises(InputError, match="no split `train`"):
        mixture([one, Task("two", {"test": one.split("train")})])

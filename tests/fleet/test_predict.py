"""Rows to predictions: whatever form rows and names come in, and what is told of those that don't fit."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lora import classes, config, gpt2
from networks import MLP, task
from torch import Tensor, nn

from plait.errors import InputError
from plait.fleet import Fleet, Member
from plait.tasks import Columns, SquaredError, Task, mean_squared_error


def double() -> nn.Module:
    return MLP().double()


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    own = [Member(name=name, seed=int(name), steps=2) for name in "123"]
    return Fleet(own, task(MLP), model=double, backend="stacked").fit()


@pytest.fixture(scope="module")
def tenants() -> Fleet:
    """Groups that are numbers, classes that are words; three outputs for two classes."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(40, 2)), columns=["x", "y"])
    frame["tenant"], frame["goal"] = np.arange(40) % 4, np.where(frame["x"] > 0, "yes", "no")
    return Fleet.from_frame(
        frame, by="tenant", target="goal", model=lambda: nn.Linear(2, 3), steps=2, backend="stacked"
    ).fit()


def refused(message: str, fleet: Fleet, data: Any, member: Any = None) -> None:
    for call in (fleet.predict, fleet.outputs):
        with pytest.raises(InputError, match=message):
            call(data, member=member)


def test_rows_of_other_types_are_made_like_those_that_were_learned_from(fleet: Fleet) -> None:
    rows = np.arange(24).reshape(2, 12) % 3
    with torch.no_grad():
        wanted = fleet["2"](torch.from_numpy(rows).double())
    for given in (rows, rows.tolist(), rows.astype(np.float32), torch.from_numpy(rows), rows > 5):
        found = fleet.outputs(given, member="2")
        assert found.dtype == torch.float64
        assert (given is not rows) or torch.allclose(found, wanted, atol=1e-12)
    assert torch.allclose(fleet.outputs({"input": rows.tolist()}, member="2"), wanted, atol=1e-12)
    still = rows.astype(np.float64)
    still.flags.writeable = False
    assert torch.allclose(fleet.outputs(still, member="2"), wanted, atol=1e-12)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            np.zeros((2, 5)),
            r"rows of `input` \(rows, 5\) don't fit.*\n  hint: it learned from `input` \(rows, 12\)",
        ),
        (np.zeros(12), r"rows have `input` of \(rows\), the member learned from \(rows, 12\)"),
        (np.zeros((1, 2, 12)), r"rows have `input` of \(rows, 2, 12\)"),
        ([[1.0, 2.0], [3.0]], "no numbers of one shape"),
        ([["a"] * 12], "no numbers of one shape"),
        (np.array([[None] * 12]), "no numbers of one shape"),
        (3.0, "is no row"),
        ({}, "there are none"),
        ({"input": np.zeros((2, 12)), "more": np.zeros(3)}, "unequal length: `input` 2, `more` 3"),
        ({"inputs": np.zeros((2, 12))}, r"`inputs` \(rows, 12\) don't fit its network: 'input'"),
    ],
)
def test_rows_that_do_not_fit(fleet: Fleet, rows: Any, message: str) -> None:
    refused(message, fleet, rows, "1")


def test_names_are_taken_as_they_are_written(fleet: Fleet) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 12))
    wanted = fleet.outputs(rows, member=["1", "3", "1"])
    each: list[Any] = [
        [1, 3, 1],
        np.array([1, 3, 1]),
        torch.tensor([1, 3, 1]),
        pd.Series([1, 3, 1]),
        iter("131"),
    ]
    for given in each:
        assert torch.equal(fleet.outputs(rows, member=given), wanted)
    one = fleet.outputs(rows, member="3")
    single: list[Any] = [3, np.int64(3), np.array(3), np.array(["3"] * 3)]
    for given in single:
        assert torch.equal(fleet.outputs(rows, member=given), one)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (7, "there is no member `7`"),
        (2.5, "there is no member `2.5`"),
        (["1", None], "there is no member `None`"),
        ([1.0, 1.0], "there is no member `1.0`"),
        ([1], "1 members for 2 rows"),
        ([[1], [9]], "there is no member `9`"),
        (None, "rows of which members"),
    ],
)
def test_names_that_are_none(fleet: Fleet, member: Any, message: str) -> None:
    refused(message, fleet, np.zeros((2, 12)), member)


def test_a_member_is_asked_for_by_its_name(fleet: Fleet) -> None:
    wrong: Any = 1
    for use in (fleet.__getitem__, fleet.state, fleet.drop):
        with pytest.raises(InputError, match="members are found by their names, and 1 is no string"):
            use(wrong)


def test_no_rows_give_no_predictions(fleet: Fleet, tenants: Fleet) -> None:
    assert fleet.predict(np.zeros((0, 12)), member="1").shape == (0,)
    assert fleet.outputs(np.zeros((0, 12)), member=[]).shape == (0, 3)
    empty = tenants.predict({"x": [], "y": [], "tenant": []})
    assert empty.shape == (0,)


def test_a_frame_may_be_a_dict_and_classes_are_those_of_the_table(tenants: Fleet) -> None:
    rows = {"x": [1.0, 2, 3], "y": [0, 1, 2], "tenant": [2, 3, 2]}
    found = tenants.predict(rows)
    assert list(found) == list(tenants.predict(pd.DataFrame(rows)))
    assert list(found) == list(tenants.predict(np.array([rows["x"], rows["y"]]).T, member=[2, 3, 2]))
    assert set(tenants.predict({"x": np.linspace(-99, 99, 50), "y": np.zeros(50)}, member=1)) <= {"yes", "no"}
    refused("the frame has no column `y`", tenants, {"x": [1.0], "tenant": [1]})
    refused("there is no member `9`", tenants, {"x": [1.0], "y": [1.0], "tenant": [9]})
    refused(r"rows of `input` \(rows, 3\) don't fit", tenants, np.zeros((1, 3)), 1)


def test_rows_with_fractions_where_ids_were_learned() -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.table(x).mean(1)

    ids = Columns({"input": torch.randint(5, (9, 4)), "label": torch.arange(9) % 3})
    fleet = Fleet([Member(name="a", steps=1)], Task("ids", {"train": ids}), model=Bag).fit()
    assert fleet.outputs([[1.0, 2.0, 3.0, 4.0]], member="a").shape == (1, 3)
    refused("fractions in `input`, the member learned from whole numbers", fleet, [[0.5] * 4], "a")


def test_classes_and_numbers_are_not_mixed() -> None:
    splits: Any = {"train": (torch.randn(9, 12).double(), torch.randn(9, 3))}
    numbers = Task("numbers", splits, loss=SquaredError(), metric=mean_squared_error())
    own = [Member(name="a", task=task(MLP), steps=1), Member(name="b", task=numbers, steps=1)]
    fleet = Fleet(own, model=double).fit()
    with pytest.raises(InputError, match="member `a` predicts classes and `b` numbers"):
        fleet.predict(np.zeros((2, 12)), member=["b", "a"])
    assert fleet.outputs(np.zeros((2, 12)), member=["b", "a"]).shape == (2, 3)
    assert fleet.predict(np.zeros((2, 12)), member="b").shape == (2, 3)


def test_rows_that_an_adapters_base_refuses() -> None:
    own = Member(name="a", task=classes(0, 3, head=False), steps=1, lora=config(target_modules=["c_attn"]))
    from transformers import GPT2ForSequenceClassification

    base: Any = gpt2().config
    base.num_labels, base.pad_token_id = 3, 0
    fleet = Fleet([own], model=GPT2ForSequenceClassification(base)).fit()
    ids = np.full((2, 5), 3)
    assert fleet.predict({"input_ids": ids}, member="a").shape == (2,)
    refused(r"member `a`: rows of `input_ids` \(rows, 5\) don't fit", fleet, {"input_ids": ids + 999}, "a")


def test_predictions_while_members_train_are_of_the_moment() -> None:
    rows, seen = np.ones((1, 12)), []

    class Look:
        def on_round(self, fleet: Fleet, validated: object) -> None:
            seen.append(fleet.outputs(rows, member="a"))

    fleet = Fleet([Member(name="a", steps=3, lr=0.1)], task(MLP), model=double)
    fleet.fit(callbacks=[Look()])
    assert not any(torch.equal(one, two) for one, two in itertools.pairwise(seen))
    assert torch.equal(fleet.outputs(rows, member="a"), seen[-1])
    fleet.add(Member(name="b", steps=1))
    assert fleet.outputs(rows, member="b").shape == (1, 3)

"""A task says at once what does not fit: splits, labels, heads, and sources that leak."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from plait.errors import InputError
from plait.tasks import (
    SPLITS,
    ByInput,
    ByKeywords,
    Columns,
    CrossEntropy,
    Headed,
    MeanPooled,
    Ragged,
    SquaredError,
    Suite,
    Task,
)


def examples(count: int = 4, *, labels=None, source=None) -> Columns:
    labels = torch.arange(count) % 2 if labels is None else labels
    return Columns({"input": torch.zeros(count, 3), "label": labels}, source)


def test_a_task_is_made_of_arrays_in_one_line():
    task = Task("t", {"train": (np.zeros((4, 3)), np.array([0, 1, 0, 1]))})
    assert task.split("train").batch([1])["label"].tolist() == [1]
    assert isinstance(task.loss, CrossEntropy)
    assert task.metric.name == "accuracy"


def test_an_unknown_split_is_named_with_the_nearest():
    with pytest.raises(InputError, match="`valdation` is no split") as caught:
        Task("t", {"valdation": examples()})
    assert "validation" in str(caught.value)


@pytest.mark.parametrize("splits", [None, 3, "train", [examples()], (np.zeros((2, 3)), np.zeros(2))])
def test_splits_are_a_mapping(splits):
    with pytest.raises(InputError, match=r"task `t`: a \w+ holds no splits\n  hint: give a mapping"):
        Task("t", splits)


def test_a_split_is_found_by_a_word():
    with pytest.raises(InputError, match="`3` is no split"):
        Task("t", {3: examples()})  # type: ignore[dict-item]


def test_a_split_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(InputError, match="there is no split `test`") as caught:
        Task("t", {"train": examples()}).split("test")
    assert "it has `train`" in str(caught.value)


def test_an_empty_split_is_refused():
    with pytest.raises(InputError, match="split `test` is empty"):
        Task("t", {"train": examples(), "test": examples(0)})


def test_labels_need_no_column_where_nothing_is_labelled():
    task = Task("t", {"calibration": Columns({"input": torch.zeros(2, 3)})})
    assert len(task.split("calibration")) == 2


@given(st.integers(-5, 9), st.integers(1, 5))
def test_a_label_is_in_the_range_of_its_head_or_refused(label, classes):
    split = {"train": examples(2, labels=torch.tensor([0, label]))}
    head = nn.Linear(3, classes)
    if 0 <= label < classes:
        assert Task("t", split, head=head).head is head
    else:
        with pytest.raises(InputError, match=f"label {label} is"):
            Task("t", split, head=head)


def test_the_range_is_that_of_the_heads_last_layer():
    head = nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 2))
    with pytest.raises(InputError, match="label 2 is out of range: the head has 2 outputs"):
        Task("t", {"train": examples(3, labels=torch.tensor([0, 1, 2]))}, head=head)


@pytest.mark.parametrize("labels", [torch.zeros(4), torch.zeros(4, 2, dtype=torch.int64)])
def test_classes_that_are_no_integers_are_refused(labels):
    with pytest.raises(InputError, match="classes are integers, one for each example"):
        Task("t", {"train": examples(4, labels=labels)})


def test_a_regression_takes_any_labels():
    task = Task("t", {"train": examples(4, labels=torch.randn(4, 2))}, SquaredError())
    assert len(task.split("train")) == 4


def test_all_problems_are_told_at_once():
    splits = {"train": examples(2, labels=torch.tensor([0, 9])), "test": examples(0)}
    with pytest.raises(InputError) as caught:
        Task("t", splits, head=nn.Linear(3, 2))
    assert "2 problems" in str(caught.value)


@given(st.sets(st.sampled_from("abcdef"), min_size=2, max_size=4), st.sampled_from("abcdef"))
def test_splits_share_no_source(train, other):
    splits = {
        "train": examples(len(train), source=sorted(train)),
        "test": Ragged({"ids": [[1]]}, {"label": torch.tensor([0])}, source=[other]),
    }
    if other in train:
        with pytest.raises(InputError, match=f"`train` and `test` share `{other}`"):
            Task("t", splits)
    else:
        assert set(Task("t", splits).splits) == {"train", "test"}


def test_the_splits_are_five():
    assert SPLITS == ("train", "validation", "test", "calibration", "adaptation")


def test_a_body_gets_a_copy_of_the_head():
    body, task = nn.Linear(3, 5), Task("t", {"train": examples()}, head=nn.Linear(5, 2))
    model = task.with_body(body)
    assert isinstance(model, Headed)
    assert model.body is not body
    assert model.head is not task.head
    assert sorted(model.state_dict()) == ["body.bias", "body.weight", "head.bias", "head.weight"]
    assert task.with_body(body, copy_body=False).body is body
    batch = task.split("train").batch([0, 1])
    assert torch.equal(task.outputs(model, batch), model.head(model.body(batch["input"])))


def test_a_task_without_a_head_takes_the_body_as_it_is():
    body, task = nn.Linear(3, 2), Task("t", {"train": examples()})
    assert not isinstance(task.with_body(body), Headed)
    batch = task.split("train").batch([0, 1])
    assert torch.equal(task.outputs(body, batch), body(batch["input"]))


def test_a_renamed_task_is_the_same_but_for_its_name():
    task = Task("t", {"train": examples()}, about="as it was")
    other = task.renamed("u")
    assert (other.name, other.about, other.splits["train"]) == ("u", "as it was", task.splits["train"])


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_mean_pooling_leaves_padding_out(lengths):
    class Encoder(nn.Module):
        def forward(self, input_ids, attention_mask):
            return type("Output", (), {"last_hidden_state": input_ids.unsqueeze(-1).float()})

    rows = [list(range(1, length + 1)) for length in lengths]
    mask = [[1] * length for length in lengths]
    split = Ragged({"input_ids": rows, "attention_mask": mask}, padding={"input_ids": 99})
    pooled = MeanPooled()(Encoder(), split.batch(range(len(rows))))
    assert pooled.flatten().tolist() == pytest.approx([(length + 1) / 2 for length in lengths])


def test_keywords_are_those_that_the_batch_has():
    def model(**given):
        return {"logits": sorted(given)}

    assert ByKeywords()(model, {"input_ids": torch.zeros(1), "labels": torch.zeros(1)}) == ["input_ids"]
    assert ByInput("x")(lambda x: x + 1, {"x": torch.tensor(1)}) == 2


def test_a_suite_gives_tasks_by_name_and_says_why_one_is_missing():
    task = Task("greek", {"train": examples()})
    suite = Suite("s", (task,), lambda: nn.Linear(3, 2), missing={"tops": "no apt-get"})
    assert suite["greek"] is task
    assert list(suite) == ["greek"]
    assert len(suite) == 1
    assert "greek" in suite
    assert "tops" not in suite
    with pytest.raises(InputError, match="task `tops` is missing: no apt-get"):
        suite["tops"]
    with pytest.raises(InputError, match="did you mean `greek`"):
        suite["greeks"]


def test_a_suite_has_tasks_of_different_names():
    task = Task("t", {"train": examples()})
    with pytest.raises(InputError, match="two tasks are called `t`"):
        Suite("s", (task, task), lambda: nn.Linear(3, 2))
    with pytest.raises(InputError, match="there is no task") as caught:
        Suite("s", (), lambda: nn.Linear(3, 2), missing={"tops": "no apt-get"})
    assert "no apt-get" in str(caught.value)

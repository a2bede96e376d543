"""Splits that overlap are refused, however they come to it; what only looks alike is not."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset as Hugging
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset, TensorDataset, random_split
from torch.utils.data import Subset as TorchSubset

from plait.errors import InputError
from plait.tasks import Columns, Items, NextToken, Ragged, Subset, Task, as_examples
from plait.tasks._arrow_rows import row_bytes

COUNT = 30
NUMBERS = np.random.default_rng(0).normal(size=(COUNT, 3)).astype(np.float32)
LABELS = np.arange(COUNT) % 2
HUGGING = Hugging.from_dict({"input": NUMBERS.tolist(), "label": LABELS.tolist()})


class Own(Dataset):
    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return torch.full((3,), float(row)), row % 2


def ragged(rows, **more) -> Ragged:
    ids = [NUMBERS[row].view(np.int32).tolist() for row in rows]
    return Ragged({"ids": ids}, {"label": torch.as_tensor(LABELS[list(rows)])}, **more)


def columns(rows, **more) -> Columns:
    rows = list(rows)
    return Columns({"input": torch.tensor(NUMBERS[rows]), "label": torch.tensor(LABELS[rows])}, **more)


OWN, TENSORS = Own(), TensorDataset(torch.tensor(NUMBERS), torch.tensor(LABELS))
TABLE = columns(range(COUNT))
PEOPLE = Subset(columns(range(COUNT), source=[f"p{row // 4}" for row in range(COUNT)]), np.arange(COUNT))

#: How to make a split of some rows of one data set, each as users do it.
PARTS = {
    "arrays": lambda rows: (NUMBERS[rows.start : rows.stop], LABELS[rows.start : rows.stop]),
    "columns": lambda rows: Columns({"input": TABLE.columns["input"][rows.start : rows.stop]}),
    "subsets": lambda rows: Subset(TABLE, np.array(rows)),
    "subsets of subsets": lambda rows: Subset(Subset(TABLE, np.arange(COUNT)), np.array(rows)),
    "torch": lambda rows: TorchSubset(OWN, list(rows)),
    "torch, nested": lambda rows: TorchSubset(TorchSubset(OWN, range(COUNT)), list(rows)),
    "subsets of torch": lambda rows: Subset(as_examples(OWN), np.array(rows)),
    "tensors": lambda rows: TorchSubset(TENSORS, list(rows)),
    "hugging face, a run": HUGGING.select,
    "hugging face, rows": lambda rows: HUGGING.select(list(rows)[::-1]),
    "hugging face, formats": lambda rows: (
        HUGGING.select(rows).with_format("torch").rename_column("label", "y")
    ),
    "made by number": lambda rows: Items(rows, prepare=OWN.__len__.__func__),
}


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("second", ["test", "validation", "calibration", "adaptation"])
def test_one_row_in_two_splits_of_one_data_set_is_refused(kind, second):
    part = PARTS[kind]
    assert len(Task("t", {"train": part(range(20)), second: part(range(20, COUNT))}, NextToken()).splits) == 2
    with pytest.raises(InputError, match=f"`train` and `{second}` share 1 of one data set's examples"):
        Task("t", {"train": part(range(21)), second: part(range(20, COUNT))}, NextToken())


def test_slices_and_choices_of_a_hugging_face_dataset_are_held_against_each_other():
    chosen = HUGGING.shuffle(seed=1).select(range(10))
    rest = HUGGING.filter(lambda row: row["input"] not in chosen["input"], keep_in_memory=True)
    assert len(Task("t", {"train": chosen, "test": rest}).splits) == 2
    number = NUMBERS.tolist().index(chosen[4]["input"])
    for other, count in (
        (HUGGING, 10),
        (HUGGING.select([number]), 1),
        (HUGGING.select(range(number + 1)), None),
    ):
        with pytest.raises(InputError, match=f"share {count or ''}.* of one data set's examples"):
            Task("t", {"train": chosen, "test": other})


def test_a_random_split_does_not_overlap():
    train, test = random_split(OWN, [20, 10])
    assert len(Task("t", {"train": train, "test": test}).split("test")) == 10


@pytest.mark.parametrize("data", [TABLE, OWN, TENSORS, HUGGING, (NUMBERS, LABELS), ragged(range(COUNT))])
def test_the_same_data_twice_are_refused(data):
    with pytest.raises(
        InputError, match=f"`train` and `test` share {COUNT} of one|{COUNT} examples are in both"
    ):
        Task("t", {"train": data, "test": data})


@given(st.sets(st.integers(0, 7), min_size=1, max_size=4), st.integers(0, 7))
def test_subsets_share_no_source_of_their_whole(train, other):
    people = np.arange(COUNT) // 4
    splits = {
        "train": Subset(PEOPLE.whole, np.flatnonzero(np.isin(people, list(train)))[::2]),
        "test": Subset(PEOPLE.whole, np.flatnonzero(people == other)[1:2]),
    }
    if other in train:
        with pytest.raises(InputError, match=f"`train` and `test` share `p{other}`"):
            Task("t", splits)
    else:
        assert len(Task("t", splits).splits) == 2


@given(st.permutations(range(COUNT)), st.integers(2, 20), st.integers(0, 20))
@pytest.mark.parametrize("make", [columns, ragged])
def test_copies_are_found_by_their_numbers_if_they_are_half_of_the_smaller_split(make, order, size, copied):
    copied = min(copied, size, 10)
    train, test = order[:10], [*order[:copied], *order[10 : 10 + size - copied]]
    splits = {"train": make(train), "test": make(test)}
    smaller = min(len(train), len(test))
    if 2 * copied >= smaller:
        told = f"hold the same numbers: {copied} of {smaller} examples are in both"
        with pytest.raises(InputError, match=told):
            Task("t", splits)
    else:
        assert len(Task("t", splits).splits) == 2


def copied(rows) -> Hugging:
    """The rows of a Hugging Face dataset in a memory of their own."""
    own = NUMBERS[list(rows)]
    columns = {"input": own.tolist(), "name": [f"row {row}" for row in rows], "deep": own[:, None].tolist()}
    return Hugging.from_dict(columns | {"label": LABELS[list(rows)].tolist()})


def test_copies_of_hugging_face_rows_are_found_by_what_they_hold():
    test = copied(range(20, COUNT))
    assert len(Task("t", {"train": copied(range(20)), "test": test}).splits) == 2
    with pytest.raises(InputError, match="`train` and `test` hold the same numbers: 5 of 10 examples"):
        Task("t", {"train": copied(range(25)), "test": test})
    with pytest.raises(InputError, match="hold the same numbers: 3 of 4 examples"):
        Task("t", {"train": copied(range(COUNT)).select([9, 29, 28, 20]), "test": test.select([0, 1, 8, 9])})


@given(st.lists(st.lists(st.lists(st.integers(0, 2), max_size=2), max_size=2), min_size=1, max_size=8))
def test_rows_of_lists_are_the_same_bytes_if_and_only_if_they_are_equal(rows):
    found = row_bytes(pa.chunked_array([pa.array(rows, pa.list_(pa.list_(pa.int64())))]))
    for one, a in zip(rows, found, strict=True):
        assert [one == other for other in rows] == [a == b for b in found]


@pytest.mark.parametrize(
    "values", [[1, None, 2, 1], ["a", "b", None, "a"], [[1.5], None, [], [1.5]], [True, False]]
)
def test_rows_of_any_kind_are_the_same_bytes_if_and_only_if_they_are_equal(values):
    found = row_bytes(pa.array(values))
    for one, a in zip(values, found, strict=True):
        assert [one == other for other in values] == [a == b for b in found]


def test_a_split_without_labels_is_held_against_those_with_them():
    bare = Columns({"input": torch.tensor(NUMBERS[:10])})
    with pytest.raises(InputError, match="`train` and `calibration` hold the same numbers: 10 of 10"):
        Task("t", {"train": columns(range(20)), "calibration": bare})


def test_data_of_few_values_are_no_copies():
    """A thousand rows of nine kinds: every row of the test is also one of training."""
    random = np.random.default_rng(0)
    few = random.integers(0, 3, (1000, 2))
    assert len(Task("t", {"train": few_task(few[:700]), "test": few_task(few[700:])}).splits) == 2
    assert len(Task("t", {"train": few_task(few * 0), "test": few_task(few * 0)}).splits) == 2


def few_task(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return inputs.astype(np.float64), np.zeros(len(inputs), np.int64)


def test_what_is_no_input_may_be_shared():
    weight = torch.ones(10, 1)
    splits = {
        name: Columns(
            {"input": torch.tensor(NUMBERS[rows]), "label": torch.zeros(10).long(), "weight": weight}
        )
        for name, rows in {"train": slice(10), "test": slice(10, 20)}.items()
    }
    assert len(Task("t", splits).splits) == 2


def test_a_renamed_task_is_not_looked_through_again(monkeypatch):
    task = Task("t", {"train": columns(range(9)), "test": columns(range(9, 20))})
    monkeypatch.setattr("plait.tasks._task.leaks", None)
    assert task.renamed("u").name == "u"

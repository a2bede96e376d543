"""Copies in two splits are found by what models get of them, however they are stored, and by nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from datasets import Dataset as Hugging
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, TensorDataset
from torch.utils.data import Subset as TorchSubset

from plait.errors import InputError
from plait.tasks import Columns, Items, NextToken, Ragged, Subset, Task, as_examples

COUNT = 12
NUMBERS = np.random.default_rng(0).normal(size=(2 * COUNT, 3))
WORDS = [f"text number {row} of many" for row in range(2 * COUNT)]
WHOLE = np.random.default_rng(1).integers(-100, 100, (2 * COUNT, 3))


def task(train, test) -> Task:
    return Task("t", {"train": train, "test": test}, NextToken())


def refused(train, test, found: int = COUNT) -> None:
    with pytest.raises(InputError, match=f"hold the same numbers: {found} of {COUNT} examples are in both"):
        task(train, test)


def table(rows: range, **more) -> Hugging:
    """Texts and numbers of some rows, and other columns."""
    columns = {"text": [WORDS[row] for row in rows], "input": [NUMBERS[row].tolist() for row in rows]}
    return Hugging.from_dict(columns | more)


FIRST, SECOND = range(COUNT), range(COUNT, 2 * COUNT)
IDS = {
    "numbers": (list(FIRST), list(SECOND)),
    "numbers, shuffled": (list(FIRST), [5 * row % 13 for row in FIRST]),
    "texts": ([f"train-{row}" for row in FIRST], [f"test-{row}" for row in FIRST]),
}


@pytest.mark.parametrize("name", ["id", "example_id", "Index", "__index_level_0__", "Unnamed: 0", "qa.key"])
@pytest.mark.parametrize("kind", IDS)
def test_copies_under_other_ids_are_found_and_other_rows_under_the_same_ids_are_none(name, kind):
    one, other = ({name: ids} for ids in IDS[kind])
    refused(table(FIRST, **one), table(FIRST, **other))
    assert task(table(FIRST, **one), table(SECOND, **one))


def test_copies_under_other_ids_are_found_in_tensors():
    def made(rows: range, ids: range, kind: torch.dtype) -> Columns:
        inputs = torch.tensor(NUMBERS[rows.start : rows.stop])
        return Columns({"input": inputs, "id": torch.tensor(list(ids), dtype=kind)})

    refused(made(FIRST, FIRST, torch.int64), made(FIRST, SECOND, torch.int32))
    assert task(made(FIRST, FIRST, torch.int64), made(SECOND, FIRST, torch.int64))
    # Floating-point numbers are no ids, whatever they are called.
    assert task(made(FIRST, FIRST, torch.float32), made(FIRST, SECOND, torch.float32))


def test_ids_are_compared_where_nothing_else_tells_examples_apart():
    """Two kinds in equal shares are alike in any two splits."""
    kinds = [row % 2 for row in FIRST]
    assert task(
        Hugging.from_dict({"id": list(FIRST), "kind": kinds}),
        Hugging.from_dict({"id": list(SECOND), "kind": kinds}),
    )
    refused(Hugging.from_dict({"id": list(FIRST)}), Hugging.from_dict({"id": list(FIRST)}))


def test_a_column_of_ids_that_are_there_twice_is_compared():
    """They are what examples are about, then: people, words."""
    one, other = ([row % 5 + start for row in FIRST] for start in (0, 100))
    assert task(table(FIRST, user_id=one), table(FIRST, user_id=other))


@given(st.lists(st.integers(0, 2 * COUNT - 1), min_size=1, max_size=COUNT - 1), st.integers(1, 3))
def test_as_many_are_found_as_a_count_of_all_says(test, times):
    """However often rows are there: the first `COUNT` of all are those of training."""
    wide = torch.tensor(np.tile(NUMBERS, 4))
    train = {"input": wide[:COUNT].repeat(times, 1)}
    same, smaller = sum(row < COUNT for row in test), len(test)
    if 2 * same >= smaller:
        with pytest.raises(InputError, match=f"numbers: {same} of {smaller} examples"):
            task(train, {"input": wide[test].clone()})
    else:
        assert task(train, {"input": wide[test].clone()})


def test_a_table_of_pandas_is_one_of_the_same_rows():
    frame = pd.DataFrame({"text": WORDS[:COUNT], "input": list(NUMBERS[:COUNT])})
    shuffled = Hugging.from_pandas(frame.sample(frac=1, random_state=0))
    assert "__index_level_0__" in shuffled.column_names
    large = Hugging(pa.Table.from_pandas(frame).cast(pa.schema(
        [("text", pa.large_string()), ("input", pa.large_list(pa.float64()))]
    )))  # fmt: skip
    for own in (shuffled, large, Hugging.from_pandas(frame)):
        refused(own, table(FIRST))
        refused(table(FIRST), own)
        assert task(own, table(SECOND))


def part(whole: Any, rows: Any) -> TorchSubset:
    return TorchSubset(whole, rows)


def tensors(rows: range) -> TensorDataset:
    return TensorDataset(torch.tensor(NUMBERS[rows.start : rows.stop]), torch.arange(COUNT))


@pytest.mark.parametrize("make", [table, tensors])
def test_copies_are_found_in_subsets_of_torch(make):
    both = part(part(make(FIRST), range(COUNT)), list(FIRST)[::-1])
    refused(both, make(FIRST))
    refused(both, Subset(as_examples(part(make(FIRST), list(FIRST))), np.arange(COUNT)))
    assert task(part(make(FIRST), range(6)), part(make(FIRST), range(6, COUNT)))
    assert task(both, make(SECOND))


def put_together(rows: range) -> ConcatDataset:
    """The same as `tensors`, of three parts in an order of their own."""
    whole = tensors(rows)
    return ConcatDataset([part(whole, range(8, COUNT)), ConcatDataset([part(whole, range(8))])])


def listed(rows: range) -> list[dict[str, Any]]:
    return [{"input": torch.tensor(NUMBERS[row]), "label": row % COUNT} for row in rows]


def pairs(rows: range) -> list[tuple[Any, int]]:
    return [(torch.tensor(NUMBERS[row]), row % COUNT) for row in rows]


@pytest.mark.parametrize("make", [put_together, listed, pairs])
def test_copies_are_found_in_datasets_put_together_and_in_lists(make):
    refused(make(FIRST), tensors(FIRST))
    refused(part(make(FIRST), range(COUNT)), make(FIRST))
    assert task(make(FIRST), make(SECOND))
    assert task(make(FIRST), tensors(SECOND))


def test_what_is_too_large_to_be_put_together_is_compared_by_row_alone(monkeypatch):
    monkeypatch.setattr("plait.tasks._in_parts._COPIED", COUNT * (3 + 1) * 8 - 1)
    for make in (put_together, listed):
        assert task(make(FIRST), tensors(FIRST))


def test_datasets_put_together_of_other_kinds_are_compared_by_row_alone():
    halves = TensorDataset(torch.tensor(NUMBERS[:COUNT]).float(), torch.arange(COUNT))
    assert task(ConcatDataset([tensors(FIRST), halves]), tensors(FIRST))
    other: Any = [({"deep": 1}, 2)] * COUNT
    assert task(ConcatDataset([tensors(FIRST), other]), tensors(SECOND))
    broken: Any = [{"input": torch.zeros(row + 1), "label": 0} for row in FIRST]
    assert task(broken, tensors(FIRST))
    with pytest.raises(InputError, match="split `train` is empty"):
        task([], tensors(FIRST))


@pytest.mark.parametrize("shape", [(1, 8, 8), (64,), (4, 16), (8, 8, 1)])
def test_numbers_are_compared_in_whatever_shape_a_row_has(shape):
    pictures = torch.randn(2 * COUNT, 8, 8, generator=torch.Generator().manual_seed(0))
    train = {"input": pictures[:COUNT]}
    refused(train, {"input": pictures[:COUNT].clone().reshape(COUNT, *shape)})
    assert task(train, {"input": pictures[COUNT:].reshape(COUNT, *shape)})


def test_copies_are_found_in_sequences_of_any_kind():
    def made(kind, rows: range = FIRST) -> Ragged:
        return Ragged({"ids": [kind([row, *range(row % 3)]) for row in rows]})

    refused(made(list), made(torch.tensor))
    refused(made(np.array), made(torch.tensor))
    assert task(made(torch.tensor), made(torch.tensor, SECOND))


def looked_up(keys: list, data: np.ndarray, **more) -> Items:
    """Examples that a table's keys stand for."""
    place = {key: row for row, key in enumerate(keys)}
    return Items(
        Hugging.from_dict({"key": keys, **more}),
        prepare=lambda row: {"input": data[place[row["key"]]], "label": 0},
    )


@pytest.mark.parametrize("keys", [list(FIRST), [f"{row}.png" for row in FIRST]])
def test_keys_are_no_examples(keys):
    train, test = NUMBERS[:COUNT], NUMBERS[COUNT:]
    assert task(looked_up(keys, train), looked_up(keys, test))
    assert task(looked_up(keys, train, about=[[0.0]] * COUNT), looked_up(keys, test, about=[[0.0]] * COUNT))
    refused(looked_up(keys, train), looked_up(keys, train.copy()))
    one, other = (Hugging.from_dict({"key": list(FIRST)}) for _ in range(2))
    one.set_transform(lambda rows: {"input": [train[key] for key in rows["key"]]})
    other.set_transform(lambda rows: {"input": [test[key] for key in rows["key"]]})
    assert task(one, other)
    other.set_transform(lambda rows: {"input": [train[key] for key in rows["key"]]})
    refused(one, other)


def test_what_can_not_be_made_is_no_copy():
    def fails(row):
        raise OSError("no such picture")

    one, other = (Items(Hugging.from_dict({"key": list(FIRST)}), prepare=fails) for _ in range(2))
    assert task(one, other)


def test_pictures_are_copies_even_if_they_are_changed_at_random():
    def at_random(row):
        return {"input": torch.tensor(row["input"]) + torch.randn(3)}

    refused(Items(table(FIRST), prepare=at_random), Items(table(FIRST), prepare=at_random))


def test_columns_that_a_format_leaves_out_say_nothing():
    one, other = table(FIRST, number=list(FIRST)), table(FIRST, number=list(SECOND))
    assert task(one, other)
    refused(one.with_format("torch", columns=["input"]), other.with_format("torch", columns=["input"]))
    every = {"columns": ["input"], "output_all_columns": True}
    assert task(one.with_format("torch", **every), other.with_format("torch", **every))


def test_sources_are_those_of_the_examples_and_not_of_the_rows_of_a_table():
    whole = table(range(2 * COUNT))
    train = Items(whole.select(range(COUNT)), source=["a"] * COUNT)
    test = Items(whole.select(list(SECOND)[::-1]), source=["b"] * (COUNT - 1) + ["a"])
    with pytest.raises(InputError, match="share `a`"):
        task(train, test)

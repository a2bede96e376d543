"""Rows are the same if their numbers are, in whatever type, and whatever they lie in."""

from __future__ import annotations

import itertools

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from datasets import Dataset as Hugging

from plait.errors import InputError
from plait.tasks import Columns, NextToken, Ragged, Task, _contents
from plait.tasks._arrow_rows import row_bytes
from plait.tasks._leaks import leaks

COUNT = 12
NUMBERS = np.random.default_rng(0).normal(size=(2 * COUNT, 3))
WORDS = [f"text number {row} of many" for row in range(2 * COUNT)]
WHOLE = np.random.default_rng(1).integers(-100, 100, (2 * COUNT, 3))
FIRST, SECOND = range(COUNT), range(COUNT, 2 * COUNT)


def task(train, test) -> Task:
    return Task("t", {"train": train, "test": test}, NextToken())


def refused(train, test, found: int = COUNT) -> None:
    with pytest.raises(InputError, match=f"hold the same numbers: {found} of {COUNT} examples are in both"):
        task(train, test)


@pytest.mark.parametrize(
    ("one", "other", "values"),
    [
        (torch.int64, torch.int32, WHOLE),
        (torch.int8, torch.int16, WHOLE),
        (torch.float64, torch.float32, NUMBERS),
        (torch.float16, torch.float64, NUMBERS),
        (torch.bfloat16, torch.float32, NUMBERS),
        (torch.int64, torch.float32, WHOLE),
        (torch.int16, torch.float64, WHOLE),
        (torch.int8, torch.bfloat16, WHOLE),
        (torch.bfloat16, torch.float16, WHOLE),
        (torch.bool, torch.uint8, np.random.default_rng(2).random((2 * COUNT, 60)) < 0.5),
        (torch.bool, torch.float32, np.random.default_rng(2).random((2 * COUNT, 60)) < 0.5),
    ],
)
def test_copies_in_another_type_are_found_in_tensors(one, other, values):
    def made(rows: range, kind: torch.dtype) -> Columns:
        return Columns({"input": torch.tensor(values[rows.start : rows.stop]).to(kind)})

    refused(made(FIRST, one), made(FIRST, other))
    assert task(made(FIRST, one), made(SECOND, other))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_both_zeros_are_one_number(kind):
    zeros = torch.tensor(NUMBERS[:COUNT]).clamp(min=0).to(kind)
    refused({"input": zeros}, {"input": torch.where(zeros == 0, -zeros, zeros)})


def test_numbers_are_as_exact_as_they_are_stored():
    """In float32 these would be the same, as would be -1 and 255 in bytes."""
    near = 1 + np.arange(COUNT)[:, None] * 1e-3
    assert task({"input": torch.tensor(near)}, {"input": torch.tensor(near + 1e-12)})
    signed = torch.arange(-COUNT, 0, dtype=torch.int8)[:, None]
    assert task({"input": signed}, {"input": signed.view(torch.uint8).clone()})
    refused({"input": signed}, {"input": signed.to(torch.int64)})


NUMBER = datasets.Value


TYPES = [
    ("whole", NUMBER("int32"), NUMBER("int64")),
    ("whole", NUMBER("int8"), NUMBER("uint8")),
    ("whole", NUMBER("int64"), NUMBER("float64")),
    ("whole", NUMBER("float32"), NUMBER("int16")),
    ("rows", datasets.List(NUMBER("int64")), datasets.List(NUMBER("float32"))),
    ("half", NUMBER("float32"), NUMBER("float64")),
    ("text", NUMBER("string"), NUMBER("large_string")),
    ("rows", datasets.List(NUMBER("int32")), datasets.List(NUMBER("int64"))),
    ("rows", datasets.List(NUMBER("int64")), datasets.List(NUMBER("int64"), length=2)),
    ("rows", datasets.List(NUMBER("int64")), datasets.LargeList(NUMBER("int16"))),
    ("words", datasets.List(NUMBER("string")), datasets.LargeList(NUMBER("large_string"))),
    ("deep", datasets.List(datasets.List(NUMBER("float32"))), datasets.Array2D((1, 2), "float64")),
]


@pytest.mark.parametrize(("name", "one", "other"), TYPES)
def test_copies_in_another_type_are_found_in_tables(name, one, other):
    def made(rows: range, kind) -> Hugging:
        columns = {
            "whole": list(rows),
            "half": [row / 2 for row in rows],
            "text": [WORDS[row] for row in rows],
            "rows": [[row, row * row] for row in rows],
            "words": [WORDS[row].split() for row in rows],
            "deep": [[[row / 4, 1.0]] for row in rows],
        }
        return Hugging.from_dict({name: columns[name]}, datasets.Features({name: kind}))

    refused(made(FIRST, one), made(FIRST, other))
    assert task(made(FIRST, one), made(SECOND, other))


def test_whole_numbers_that_pandas_made_floating_point_are_the_same():
    """As one is missing, in a row that is no copy."""
    frame = pd.DataFrame({"a": WHOLE[:COUNT, 0], "b": WHOLE[:COUNT, 1]})
    gap = pd.concat([frame, pd.DataFrame({"a": [np.nan], "b": [1]})], ignore_index=True)
    assert gap["a"].dtype == np.float64
    refused(Hugging.from_pandas(frame), Hugging.from_pandas(gap))


def test_rows_of_numbers_are_the_same_whatever_they_lie_in():
    sequences = Ragged({"input": WHOLE[:COUNT].tolist()})
    tensors = {"input": torch.tensor(WHOLE[:COUNT], dtype=torch.int32)}
    floats = {"input": torch.tensor(WHOLE[:COUNT], dtype=torch.float32)}
    lists = Hugging.from_dict({"input": WHOLE[:COUNT].tolist()})
    for one, other in itertools.permutations([sequences, tensors, floats, lists], 2):
        refused(one, other)
    assert task(sequences, {"input": torch.tensor(WHOLE[COUNT:])})


def test_sequences_that_python_hashes_alike_are_told_apart():
    assert hash((-1,)) == hash((-2,))
    ids = [[row, -1, -1] for row in FIRST], [[row, -2, -1] for row in FIRST]
    assert task(*(Ragged({"ids": part}) for part in ids))


def test_large_splits_are_looked_through_part_by_part(monkeypatch):
    """288 MiB if they were written out: rows are the same number many times, and told apart by it."""
    taken = []
    found = _contents._bytes
    monkeypatch.setattr(_contents, "_bytes", lambda *told: taken.append(len(rows := found(*told))) or rows)

    def made(rows: range) -> dict[str, torch.Tensor]:
        return {"input": torch.tensor(list(rows), dtype=torch.float32)[:, None].expand(-1, 3 << 10)}

    count = 24 << 10
    assert task(made(range(count)), made(range(count, count + 100)))
    with pytest.raises(InputError, match="hold the same numbers: 100 of 100"):
        task(made(range(count)), made(range(7, 107)))
    assert sum(taken) == 2 * (count + 100)
    assert max(taken) * (3 << 10) * 4 <= 4 << 20


@pytest.mark.parametrize("rows", [[[]] * COUNT, [["a", "b"]] * COUNT, [[1, [2]]] * COUNT])
def test_sequences_that_say_nothing_are_no_copies(rows):
    assert not leaks({"train": Ragged({"ids": rows}), "test": Ragged({"ids": rows[:]})}, None, "task")


@pytest.mark.parametrize(
    "kind", [torch.complex64, torch.uint16, torch.uint64, torch.float8_e4m3fn, torch.bool, torch.int8]
)
def test_tensors_of_any_type_are_looked_through(kind):
    random = torch.Generator().manual_seed(0)
    one, other = (torch.randint(0, 2, (COUNT, 60), generator=random).to(kind) for _ in range(2))
    refused({"input": one}, {"input": one.clone()})
    assert task({"input": one}, {"input": other})


def test_rows_with_gaps_are_the_same_whatever_lies_beside_them():
    """What is missing elsewhere changes nothing of a row: they are looked at part by part."""
    for rows in ([1, 2, None], [[1], [], [2, None], None], [[0.5], [0.5, None]], [True, None]):
        whole = row_bytes(pa.array(rows))
        assert whole == [row_bytes(pa.array(rows).slice(row, 1))[0] for row in range(len(rows))]

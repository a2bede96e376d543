"""Examples: arrays, mappings, datasets and sequences of unequal length give the same kind of batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from plait.errors import InputError
from plait.tasks import Columns, Examples, Items, Ragged, Subset, as_examples, digest

SEQUENCES = st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=7), min_size=1, max_size=6)


def table(count: int = 5) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(2.0 * count).reshape(count, 2), np.arange(count) % 2


def test_arrays_become_columns_with_numbers_as_models_have_them():
    batch = as_examples(table()).batch([3, 1])
    assert batch["input"].dtype == torch.float32
    assert batch["input"].tolist() == [[6.0, 7.0], [2.0, 3.0]]
    assert batch["label"].tolist() == [1, 1]


def test_a_mapping_keeps_its_names():
    batch = as_examples({"pixels": table()[0], "label": table()[1]}).batch([0])
    assert sorted(batch) == ["label", "pixels"]


def test_a_torch_dataset_gives_what_its_arrays_give():
    inputs, labels = (torch.as_tensor(column) for column in table())
    wrapped, plain = as_examples(TensorDataset(inputs.float(), labels)), as_examples((inputs.float(), labels))
    assert isinstance(wrapped, Items)
    for name, column in plain.batch([4, 0, 2]).items():
        assert torch.equal(wrapped.batch([4, 0, 2])[name], column)
    assert digest(wrapped) == digest(plain)


def test_a_hugging_face_dataset_gives_what_its_columns_give():
    from datasets import Dataset

    columns = {"input": [[1.0, 2.0], [3.0, 4.0]], "label": [1, 0]}
    for form in (None, "torch", "numpy"):
        batch = as_examples(Dataset.from_dict(columns).with_format(form)).batch([1, 0])
        assert batch["input"].tolist() == [[3.0, 4.0], [1.0, 2.0]]
        assert batch["label"].tolist() == [0, 1]


def test_items_are_prepared_when_they_are_asked_for():
    asked = []

    def prepare(item: int) -> dict[str, int]:
        asked.append(item)
        return {"input": item * item}

    examples = Items([1, 2, 3], prepare=prepare)
    assert examples.batch([2, 1])["input"].tolist() == [9, 4]
    assert asked == [3, 2]


@given(SEQUENCES, st.integers(-100, 0), st.data())
def test_a_ragged_batch_is_as_long_as_its_longest_and_filled_up(sequences, fill, data):
    rows = data.draw(st.lists(st.integers(0, len(sequences) - 1), min_size=1, max_size=5))
    batch = Ragged({"ids": sequences}, padding={"ids": fill}).batch(rows)["ids"]
    assert batch.shape == (len(rows), max(len(sequences[row]) for row in rows))
    for found, row in zip(batch.tolist(), rows, strict=True):
        wanted = sequences[row]
        assert found == wanted + [fill] * (len(found) - len(wanted))


def test_a_ragged_batch_keeps_its_columns():
    examples = Ragged({"ids": [[1], [2, 3]]}, {"label": torch.tensor([7, 8])})
    assert examples.batch([1])["label"].tolist() == [8]
    assert len(examples) == 2


@given(st.integers(1, 40), st.data())
def test_a_subset_gives_the_rows_of_its_whole(count, data):
    rows = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=9))
    whole = as_examples(table(count))
    part = Subset(whole, np.array(rows))
    asked = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=9))
    for name, column in part.batch(asked).items():
        assert torch.equal(column, whole.batch([rows[row] for row in asked])[name])


def test_all_of_them_are_examples():
    for made in (Columns({}), Ragged({"ids": [[1]]}), Items([1])):
        assert isinstance(made, Examples)


@given(st.integers(0, 4), st.integers(0, 1), st.floats(0.5, 3))
def test_the_digest_sees_every_number(row, column, change):
    inputs, labels = table()
    before = digest(as_examples((inputs, labels)))
    inputs[row, column] += change
    assert digest(as_examples((inputs, labels))) != before


def test_the_digest_sees_names_types_and_order():
    inputs, labels = table()
    made = [
        as_examples((inputs, labels)),
        as_examples({"pixels": inputs, "label": labels}),
        as_examples((inputs, labels.astype(np.int32))),
        as_examples((inputs[::-1].copy(), labels[::-1].copy())),
    ]
    assert len({digest(examples) for examples in made}) == len(made)


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(InputError, match="unequal length: `input` 5, `label` 4"):
        as_examples({"input": table()[0], "label": table()[1][:4]})


def test_sources_must_be_one_for_each_example():
    with pytest.raises(InputError, match="2 sources for 3 examples"):
        Columns({"input": torch.zeros(3)}, ["a", "b"])


@pytest.mark.parametrize("data", [3, None, object()])
def test_what_holds_no_examples_is_refused(data):
    with pytest.raises(InputError, match="holds no examples"):
        as_examples(data)


def test_a_column_of_words_is_refused():
    with pytest.raises(InputError, match="column `input` is of <U1, which are no numbers"):
        as_examples({"input": np.array(["a", "b"])})


@pytest.mark.parametrize("data", [{"input": [[1, 2], [3]]}, ([[1, 2], [3]], [0, 1])])
def test_lists_of_unequal_length_are_told_of_ragged(data):
    with pytest.raises(InputError, match=r"column `input` has rows of unequal length\n.*`Ragged`"):
        as_examples(data)


def test_an_item_that_names_nothing_is_refused():
    with pytest.raises(InputError, match="example 0 is a int"):
        Items([1, 2]).batch([0])


def test_ragged_examples_need_sequences_of_one_number():
    with pytest.raises(InputError, match="ragged examples have no sequences"):
        Ragged({})
    with pytest.raises(InputError, match="columns of unequal length: `a` 1, `label` 2"):
        Ragged({"a": [[1, 2]]}, {"label": torch.zeros(2)})


def test_texts_beside_the_numbers_of_a_dataset_stay_out_of_batches():
    from datasets import Dataset

    rows = {"input": [[1.0], [2.0]], "label": [0, 1], "text": ["a", "b"], "words": [["a"], ["b", "c"]]}
    assert sorted(as_examples(Dataset.from_dict(rows)).batch([0, 1])) == ["input", "label"]


@pytest.mark.parametrize(
    "odd",
    [
        {"input": [1.0, 2.0], "label": 0},
        {"input": [1.0], "label": None},
        {"input": [1.0]},
        {"input": object(), "label": 0},
    ],
)
def test_items_that_make_no_batch_are_refused(odd):
    rows = [{"input": [1.0], "label": 0}] * 4
    with pytest.raises(InputError, match=r"examples 0, 3: examples make no batch"):
        Items([*rows[:3], odd]).batch([0, 3])


def test_columns_of_items_are_taken_by_row():
    examples = Items(range(4), prepare=lambda row: {"input": row}, columns={"label": torch.arange(4) * 2})
    assert examples.batch([3, 1])["label"].tolist() == [6, 2]

"""Labels that no head has an output for are found before training where examples need not be made for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import Dataset, TensorDataset
from torch.utils.data import Subset as TorchSubset

from plait.errors import InputError
from plait.tasks import Columns, Examples, Items, Ragged, Subset, Task, as_examples, evaluate, known_labels

COUNT = 12


class Pairs(Dataset):
    """A dataset that says nothing of its labels before it is asked for an example."""

    def __init__(self, labels: torch.Tensor) -> None:
        self.labels, self.asked = labels, 0
        self.targets = torch.zeros_like(labels)  # as torchvision has them: not what examples bring

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked += 1
        return torch.zeros(3), self.labels[row]


class Shifted(TensorDataset):
    """A dataset that changes what its tensors hold."""

    def __getitem__(self, row: int) -> tuple[torch.Tensor, ...]:
        inputs, label = super().__getitem__(row)
        return inputs, label + 1


def hugging(labels: torch.Tensor) -> Any:
    from datasets import Dataset as Hugging

    return Hugging.from_dict({"input": [[0.0] * 3] * len(labels), "label": labels.tolist()})


#: Kind of data → what makes it of labels; all whose labels are known without making an example.
KNOWN = {
    "columns": lambda y: Columns({"input": torch.zeros(len(y), 3), "label": y}),
    "ragged": lambda y: Ragged({"ids": [[1]] * len(y)}, {"label": y}),
    "subset": lambda y: Subset(Columns({"input": torch.zeros(len(y), 3), "label": y}), np.arange(len(y))),
    "tensors": lambda y: TensorDataset(torch.zeros(len(y), 3), y),
    "part of tensors": lambda y: TorchSubset(TensorDataset(torch.zeros(len(y), 3), y), list(range(len(y)))),
    "pairs": lambda y: [(torch.zeros(3), label) for label in y],
    "mappings": lambda y: [{"input": torch.zeros(3), "label": label} for label in y.tolist()],
    "hugging face": hugging,
    "hugging face, torch": lambda y: hugging(y).with_format("torch"),
    "hugging face, selected": lambda y: hugging(y.flip(0)).select(range(len(y) - 1, -1, -1)),
    "items": lambda y: Items(range(len(y)), prepare=lambda row: {"input": row}, columns={"label": y}),
}


@pytest.mark.parametrize("kind", KNOWN)
@pytest.mark.parametrize("label", [-100, -1, 2])
def test_a_late_label_out_of_range_is_named_with_its_example(kind, label):
    labels = torch.arange(COUNT) % 2
    made = KNOWN[kind](labels)
    assert known_labels(as_examples(made), "label").tolist() == labels.tolist()
    assert len(Task("t", {"train": made}, head=nn.Linear(3, 2)).split("train")) == COUNT
    labels[10] = label
    with pytest.raises(InputError, match=f"task `t`, split `train`, example 10: label {label} is"):
        Task("t", {"train": KNOWN[kind](labels)}, head=nn.Linear(3, 2))


@pytest.mark.parametrize(
    "make",
    [
        Pairs,
        lambda y: Shifted(torch.zeros(len(y), 3), y),
        lambda y: hugging(y).with_transform(lambda rows: rows),
        lambda y: Items(list(y), prepare=lambda label: {"input": torch.zeros(3), "label": label}),
        lambda y: TorchSubset(Pairs(y), [0, 1]),
    ],
)
def test_what_may_change_its_labels_on_the_way_is_not_asked_before(make):
    examples = as_examples(make(torch.arange(COUNT) % 2))
    assert isinstance(examples, Examples)
    assert known_labels(examples, "label") is None


def test_no_example_is_made_to_look_for_labels():
    data = Pairs(torch.full((COUNT,), 9))
    Task("t", {"train": data}, head=nn.Linear(3, 2))
    assert data.asked == 0


@given(st.integers(0, COUNT - 1), st.sampled_from([-100, -2, 2]), st.integers(1, 5))
def test_evaluation_names_the_example_that_a_batch_brings(row, label, batch_size):
    labels = torch.zeros(COUNT, dtype=torch.int64)
    labels[row] = label
    task = Task("pairs", {"test": Pairs(labels)}, head=nn.Linear(3, 2))
    with pytest.raises(InputError, match=f"task `pairs`, split `test`, example {row}: label {label} is"):
        evaluate(nn.Linear(3, 3), task, batch_size=batch_size, bootstrap=0)


@pytest.mark.parametrize("labels", [torch.zeros(COUNT), torch.zeros(COUNT, 1, dtype=torch.int64)])
def test_labels_of_a_batch_that_are_no_classes_are_refused(labels):
    task = Task("pairs", {"test": Pairs(labels)}, head=nn.Linear(3, 2))
    with pytest.raises(InputError, match="classes are integers, one for each example"):
        evaluate(nn.Linear(3, 3), task, bootstrap=0)


def test_a_class_that_is_missing_in_a_hugging_face_column_is_told():
    from datasets import Dataset as Hugging

    data = Hugging.from_dict({"input": [[0.0]] * 3, "label": [0, None, 1]})
    with pytest.raises(InputError, match="classes are integers"):
        Task("t", {"train": data})

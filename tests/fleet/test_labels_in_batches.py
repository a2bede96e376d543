"""A label that shows only when its batch is made ends a fleet in one message that names the example."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from plait.errors import InputError
from plait.fleet import Fleet, Member
from plait.tasks import Columns, Task

COUNT = 40


class Pairs(Dataset):
    """Examples whose labels nobody knows before they are made."""

    def __init__(self, row: int = 0, label: int = 0) -> None:
        self.inputs = torch.randn(COUNT, 4, generator=torch.Generator().manual_seed(0))
        self.labels = torch.arange(COUNT) % 3
        self.labels[row] = label

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inputs[row], self.labels[row]


def members(**settings) -> list[Member]:
    return [Member(name=name, epochs=1, batch_size=8, seed=k, **settings) for k, name in enumerate("ab")]


@pytest.mark.parametrize("backend", ["sequential", "stacked", "auto"])
@pytest.mark.parametrize("data_seed", [None, 5])  # batches of their own, and one for all
@pytest.mark.parametrize("head", [nn.Linear(5, 3), None])
@pytest.mark.parametrize("label", [3, -100])
def test_in_training(backend, data_seed, head, label):
    task = Task("t", {"train": Pairs(37, label)}, head=head)
    model = nn.Linear(4, 3 if head is None else 5)
    fleet = Fleet(members(data_seed=data_seed), task, model=model, backend=backend)
    with pytest.raises(InputError, match=f"task `t`, split `train`, example 37: label {label} is"):
        fleet.fit()


def test_in_validation():
    task = Task("t", {"train": Pairs(), "validation": Pairs(31, 3)})
    fleet = Fleet(members(), task, model=nn.Linear(4, 3))
    with pytest.raises(InputError, match="split `validation`, example 31: label 3 is out of range"):
        fleet.fit()


@pytest.mark.parametrize("backend", ["sequential", "stacked"])
def test_looking_changes_nothing(backend):
    data, model = Pairs(), nn.Linear(4, 3)
    one, other = (
        Fleet(members(), Task("t", {"train": split}), model=model, backend=backend).fit()
        for split in (data, Columns({"input": data.inputs, "label": data.labels}))
    )
    for name in "ab":
        assert torch.equal(one[name].weight, other[name].weight)

"""Heads that say that their rows are classes: those that compute otherwise are not filled up."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from networks import MLP
from torch import Tensor, nn
from torch.nn import functional as F

from plait.errors import InputError
from plait.fleet import Fleet, Member
from plait.fleet._filled_heads import fills, wider
from plait.tasks import Task


class Rows(nn.Module):
    """A head whose only tensor has a row for each class."""

    rows_are_classes = True

    def __init__(self, classes: int, features: int, *, zero: bool = False) -> None:
        super().__init__()
        made = torch.randn(classes, features, dtype=torch.float64)
        self.weight = nn.Parameter(made * 0 if zero else made)

    def forward(self, h: Tensor) -> Tensor:
        return h @ self.weight.T


class ByNumber(Rows):
    def forward(self, h: Tensor) -> Tensor:
        return h @ self.weight.T / len(self.weight)


class ByNumberInTraining(Rows):
    def forward(self, h: Tensor) -> Tensor:
        return h @ self.weight.T / (len(self.weight) if self.training else 2)


class ByOthers(Rows):
    """Rows of zeros change nothing at first; they would not stay zero."""

    def forward(self, h: Tensor) -> Tensor:
        return h @ (self.weight - self.weight.sum(0)).T


class Centred(Rows):
    def forward(self, h: Tensor) -> Tensor:
        found = h @ self.weight.T
        return found - found.mean(-1, keepdim=True)


class Dropping(Rows):
    def forward(self, h: Tensor) -> Tensor:
        return F.dropout(h @ self.weight.T, 0.3, self.training)


class Cosines(Rows):
    def forward(self, h: Tensor) -> Tensor:
        return F.normalize(h, dim=-1) @ F.normalize(self.weight, dim=-1).T * 4


class Scaled(Rows):
    """Has a tensor without rows."""

    def __init__(self, classes: int, features: int) -> None:
        super().__init__(classes, features)
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, h: Tensor) -> Tensor:
        return h @ self.weight.T * self.scale


class Body(MLP):
    def __init__(self) -> None:
        super().__init__(outputs=4)
        self.double()


def tasks(make: Any) -> list[Task]:
    found = []
    for place, classes in enumerate((3, 5, 3)):
        torch.manual_seed(place)
        data = (torch.randn(40, 12, dtype=torch.float64), torch.arange(40) % classes)
        found.append(Task(f"t{place}", {"train": data}, head=make(classes, 4)))
    return found


def trained(make: Any, backend: Any) -> Fleet:
    own = tasks(make)
    members = [Member(name=t.name, task=t.name, steps=12, lr=0.03, seed=i, clip=1) for i, t in enumerate(own)]
    return Fleet(members, own, model=Body, backend=backend).fit()


def gap(one: Fleet, two: Fleet) -> float:
    pairs = [(one.state(name).parameters, two.state(name).parameters) for name in one]
    return max(float((a[key] - b[key]).abs().max()) for a, b in pairs for key in a)


WRONG = [ByNumber, functools.partial(ByNumber, zero=True), ByNumberInTraining, ByOthers, Centred, Scaled]


def by_number(head: Any, inputs: Any, outputs: Tensor) -> Tensor:
    return outputs / len(head.weight)


def hooked(classes: int, features: int) -> nn.Module:
    """A linear layer that does more."""
    made = nn.Linear(features, classes).double()
    made.register_forward_hook(by_number)
    return made


@pytest.mark.parametrize("make", [*WRONG, hooked])
def test_a_head_that_looks_at_other_classes_is_not_filled_up(make: Any) -> None:
    with pytest.raises(InputError, match=r"tensor `head.weight` .*; what `head` \(\w+\) gives for a class"):
        trained(make, "stacked")
    loop, auto = (trained(make, backend) for backend in ("sequential", "auto"))
    assert gap(loop, auto) < 1e-10
    x = torch.randn(6, 12, dtype=torch.float64)
    for name in loop:
        wanted = loop[name].eval()({"input": x})
        found = auto.outputs(x, member=[name] * 6)[:, : wanted.shape[1]]
        torch.testing.assert_close(found, wanted.detach(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("make", [Rows, functools.partial(Rows, zero=True), Cosines, Dropping])
def test_heads_whose_rows_are_classes_are_filled_up(make: Any) -> None:
    stack = trained(make, "stacked")
    assert gap(stack, trained(make, "sequential")) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_trial_allows_for_rounding(dtype: torch.dtype) -> None:
    for make, wanted in ((Cosines, True), (ByNumber, False)):
        torch.manual_seed(0)
        data = (torch.randn(20, 12).to(dtype), torch.arange(20) % 3)
        learned = Task("t", {"train": data}, head=make(3, 4).to(dtype))
        fleet = Fleet([Member(name="m", steps=1)], learned, model=lambda dtype=dtype: Body().to(dtype))
        fleet.fit()
        assert fills(fleet._roster.trainees["m"]) is wanted


def test_a_trial_changes_nothing() -> None:
    head = Rows(3, 4, zero=True)
    grown: Any = wider(head, 5)
    assert grown.weight.shape == (5, 4)
    assert not grown.weight.detach().any()
    state = torch.get_rng_state()
    data = (torch.randn(20, 12, dtype=torch.float64), torch.arange(20) % 3)
    torch.set_rng_state(state)
    learned = Task("t", {"train": data}, head=head)
    fleet = Fleet([Member(name="m", steps=1)], learned, model=Body, backend="sequential")
    trainee = fleet._roster.trainees["m"]
    before = {key: value.clone() for key, value in trainee.network.state_dict().items()}
    assert fills(trainee)
    assert torch.equal(torch.get_rng_state(), state)
    assert not head.weight.any()
    assert all(torch.equal(before[key], value) for key, value in trainee.network.state_dict().items())

"""Networks that do more than arithmetic: what stacks, what is refused; nothing is frozen silently."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from networks import MLP, task
from torch import Tensor, nn

from plait.errors import InputError
from plait.fleet import Fleet, Member

MEMBERS = [
    Member(name=f"m{i}", seed=i, steps=40, lr=0.01 * (1 + i), weight_decay=0.2, decay="all") for i in range(3)
]


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.calls = nn.Linear(12, 8), nn.Linear(8, 3), 0
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)))


class Unused(Base):
    """Holds a layer that no output depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(4, 4).double()


class Counting(Base):
    """Halves its output after some calls."""

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return super().forward(x) * (0.5 if self.calls > 20 else 1.0)


class Caching(Base):
    """Notes a number in its first call."""

    def forward(self, x: Tensor) -> Tensor:
        self.calls = 1
        return super().forward(x)


class Remembering(Base):
    """Does something else once a list is long enough."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.append(1)
        return super().forward(x) * (0.5 if len(self.seen) > 20 else 1.0)


class Drawing(Base):
    """Draws a number that no seed of a member decides."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (0.0 if random.random() < 0.5 else 1.0)


def fitted(network: type[nn.Module], backend: Any) -> Fleet:
    return Fleet(MEMBERS, task(MLP), model=network, backend=backend).fit()


def gap(one: Fleet, two: Fleet) -> float:
    pairs = [(one.state(m.name).parameters, two.state(m.name).parameters) for m in MEMBERS]
    return max(float((a[n] - b[n]).abs().max()) for a, b in pairs for n in a)


@pytest.mark.parametrize("network", [Base, Unused, Counting, Caching, Remembering])
def test_stacked_equals_the_loop(network: type[nn.Module]) -> None:
    assert gap(fitted(network, "stacked"), fitted(network, "sequential")) < 1e-10


def test_what_no_loss_depends_on_stays_as_it_was_as_in_pytorch() -> None:
    fleet = fitted(Unused, "stacked")
    for member in MEMBERS:
        torch.manual_seed(member.seed)
        assert torch.equal(fleet[member.name].spare.weight, Unused().spare.weight)
    assert fleet.state("m0").moments[0].keys() == Base().state_dict().keys()


def test_a_network_that_draws_for_itself_is_not_stacked() -> None:
    with pytest.raises(InputError, match="draws random numbers of Python") as caught:
        fitted(Drawing, "stacked")
    assert 'backend="sequential"' in str(caught.value)
    assert {choice.kind for choice in fitted(Drawing, "auto").choices.values()} == {"sequential"}


def test_what_can_be_computed_and_not_recorded_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    from plait.fleet import _capture

    def fail(*_: Any) -> Any:
        raise RuntimeError("no kernel for this")

    expected = fitted(Base, "stacked")
    monkeypatch.setattr(_capture, "make_fx", lambda function: fail)
    assert gap(fitted(Base, "stacked"), expected) == 0

"""What networks change or use besides their parameters, in stacks as in a plain loop written here."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import MLP, labelled
from torch import Tensor, nn

from plait.errors import InputError
from plait.fleet import Callback, Fleet, Member
from plait.fleet._build import build
from plait.fleet._sequential import Sequential
from plait.fleet._stream import rows
from plait.tasks import Task

TASK = Task("t", {"train": labelled(MLP, 60)})
MEMBERS = [
    Member(name=f"m{i}", steps=25, lr=0.02 * (i + 1), seed=i, batch_size=10, weight_decay=0.2, decay="all")
    for i in range(3)
]


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.other = nn.Linear(12, 3), nn.Linear(12, 3)
        self.register_buffer("mean", torch.zeros(12))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class UsedInTraining(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + 0.4 * torch.tanh(self.other(x)) if self.training else self.inner(x)


class UsedInEvaluation(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) if self.training else self.other(x)


class PutsAnew(Base):
    """A running mean that is a new tensor each time."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = self.mean * 0.9 + x.detach().mean(0) * 0.1
        return self.inner(x - self.mean)


class PutsTwice(Base):
    """Puts a constant, then adds to it in place."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = torch.ones_like(self.mean)
            self.mean += x.detach().amax(0)
        return self.inner(x - self.mean)


def alone(member: Member, kind: type[nn.Module]) -> nn.Module:
    """One member as anyone would train it."""
    torch.manual_seed(member.seed)
    network, data = kind(), TASK.splits["train"]
    optimizer = torch.optim.AdamW(network.parameters(), lr=member.lr, weight_decay=member.weight_decay)
    for step in range(25):
        batch = data.batch(rows(member.seed, step, examples=60, size=10, per_epoch=6))  # type: ignore[arg-type]
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(batch["input"]), batch["label"]).backward()
        optimizer.step()
    return network


@pytest.mark.parametrize("backend", ["sequential", "stacked", "auto"])
@pytest.mark.parametrize("kind", [Base, UsedInTraining, UsedInEvaluation, PutsAnew, PutsTwice])
def test_members_end_as_in_a_plain_loop(kind: type[nn.Module], backend: Any) -> None:
    fleet = Fleet(MEMBERS, TASK, model=kind, backend=backend).fit()
    for member in MEMBERS:
        wanted = alone(member, kind).state_dict()
        for name, found in fleet[member.name].state_dict().items():
            torch.testing.assert_close(found, wanted[name], rtol=1e-10, atol=1e-10)


class NewBuffer(Base):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.register_buffer("seen", x.detach().mean(0))
        return self.inner(x)


class ByShape(Base):
    """Uses a layer for batches of ten, and none for what is left over."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + (self.other(x) if len(x) == 10 else 0)


class Counting(Base):
    def __init__(self) -> None:
        super().__init__()
        self.calls, self.seen = 0, {"calls": [0]}

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return self.inner(x) * (1 + 0.1 * min(self.calls, 20))


class CountingInside(Counting):
    def forward(self, x: Tensor) -> Tensor:
        self.seen["calls"][0] += self.training
        return self.inner(x) * (1 + 0.1 * min(self.seen["calls"][0], 20))


class Drawing(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * (1 + 0.1 * np.random.rand() + 0.1 * random.random())


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        (NewBuffer, 10, "it makes or takes away its buffer `seen` as it runs"),
        (ByShape, 25, "its loss depends on `other.bias` in some batches and not in others"),
        (Counting, 10, "each step changes `calls`, which members would share"),
        (CountingInside, 10, "each step changes `seen`, which members would share"),
        (Drawing, 10, "it draws random numbers of Python or NumPy"),
    ],
)
def test_what_a_stack_can_not_do_exactly_it_refuses(kind: Any, size: int, message: str) -> None:
    own = [
        Member(name=f"m{i}", steps=15, lr=0.02, seed=i, batch_size=size, weight_decay=0.2) for i in range(3)
    ]
    with pytest.raises(InputError, match=message):
        Fleet(own, TASK, model=kind, backend="stacked").fit()
    if kind is NewBuffer:  # nor can the loop
        return
    loop, auto = (Fleet(own, TASK, model=kind, backend=backend).fit() for backend in ("sequential", "auto"))
    for name in loop:
        for key, wanted in loop[name].state_dict().items():  # some had steps in a stack before it showed
            torch.testing.assert_close(auto[name].state_dict()[key], wanted, rtol=1e-10, atol=1e-10)


def weight(fleet: Fleet, name: str) -> Tensor:
    return fleet.state(name).parameters["inner.weight"]


def test_noise_of_python_and_numpy_depends_on_member_and_step_alone() -> None:
    together = Fleet(MEMBERS, TASK, model=Drawing, backend="sequential").fit()
    for member in MEMBERS:
        random.seed(5)
        np.random.seed(6)
        single = Fleet([member], TASK, model=Drawing, backend="sequential").fit()
        assert torch.equal(weight(single, member.name), weight(together, member.name))
    plain = Fleet(MEMBERS, TASK, model=Base, backend="sequential").fit()
    assert not torch.allclose(weight(plain, "m0"), weight(together, "m0"), atol=1e-4)


def test_generators_of_python_numpy_and_pytorch_are_afterwards_as_before() -> None:
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    wanted = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    Fleet(MEMBERS, TASK, model=Drawing, backend="auto").fit()
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == wanted


def test_a_choice_of_backends_leaves_networks_as_they_were() -> None:
    fleet = Fleet(MEMBERS, TASK, model=Counting, backend="auto")
    loop = Fleet(MEMBERS, TASK, model=Counting, backend="sequential").fit()
    fleet.fit()
    assert [fleet[name].calls for name in fleet] == [loop[name].calls for name in loop] == [25] * 3


class Grows(nn.Module):
    """Its buffer grows, goes or comes as it is trained; its third call fails, if wanted."""

    def __init__(self, how: str, fails: int = 0) -> None:
        super().__init__()
        self.last, self.how, self.fails, self.calls = nn.Linear(12, 3), how, fails, 0
        self.register_buffer("mean", torch.zeros(1, 12))
        self.double()
        if how == "promoted":
            self.mean = torch.zeros(1, 12, dtype=torch.int64)
        if how == "filled":
            self.register_buffer("later", None)
        if how == "shared":
            self.other = nn.Module()
            self.other.register_buffer("mean", self.mean)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            own = x.mean(0, keepdim=True)
            if self.how == "grows":
                self.mean = torch.cat([self.mean, own])
            elif self.how == "goes":
                self.mean = None
            elif self.how == "promoted":
                self.mean = self.mean.float() * 0.9 + own.float() * 0.1
            elif self.how == "filled":
                self.later = own if self.later is None else self.later * 0.5 + own
            elif self.how == "shared":
                self.mean = self.other.mean = torch.cat([self.mean, own])
            elif self.how == "comes":
                self.register_buffer("other", own)
            elif self.how == "expands":
                self.mean = x.mean().expand(1, 12)
            self.calls += bool(self.fails)
            if self.fails and self.calls == self.fails:
                raise RuntimeError("for a moment")
        if self.how == "filled" and self.later is not None:
            x = x + self.later.mean(0)
        if self.how == "shared":
            x = x * (1 + self.other.mean.mean())
        return self.last(x if self.mean is None else x - self.mean.double().mean(0))


class Stop(Callback):
    def on_round(self, fleet: Fleet, validated: object) -> None:
        if fleet.round == 5:
            raise KeyboardInterrupt


@pytest.mark.parametrize("how", ["grows", "comes", "expands", "promoted", "filled", "shared"])
@pytest.mark.parametrize("backend", ["sequential", "auto"])
def test_buffers_that_come_or_change_shape_are_saved(how: str, backend: Any, tmp_path: Path) -> None:
    def made(out: Path | None) -> Fleet:
        own = [Member(name=f"m{i}", steps=9, seed=i, lr=0.1) for i in range(2)]
        return Fleet(own, TASK, model=lambda: Grows(how), backend=backend, out=out, save_every=2)

    whole = made(None).fit()
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path).fit(callbacks=[Stop()])
    resumed = made(tmp_path).fit(resume=True)
    stacks = any(choice.kind == "stacked" for choice in whole.choices.values())
    assert how == "expands" or not stacks
    for name in whole:
        one, two = whole[name].state_dict(), resumed[name].state_dict()
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
        assert all(one[key].dtype == two[key].dtype for key in one)


@pytest.mark.parametrize("how", ["grows", "comes", "promoted", "filled", "shared"])
def test_a_stack_refuses_buffers_that_come_or_change_shape(how: str) -> None:
    own = [Member(name=f"m{i}", steps=5) for i in range(2)]
    with pytest.raises(InputError, match="its buffer `"):
        Fleet(own, TASK, model=lambda: Grows(how), backend="stacked").fit()


def test_a_lost_buffer_is_named() -> None:
    own = [Member(name=f"m{i}", steps=5) for i in range(2)]
    with pytest.raises(InputError, match="loses its buffer `mean`"):
        Fleet(own, TASK, model=lambda: Grows("goes")).fit()


@pytest.mark.parametrize("how", ["grows", "goes", "comes", "expands", "promoted", "filled", "shared"])
def test_what_a_failed_step_did_to_buffers_is_undone(how: str) -> None:
    lone = build(Member(name="m", steps=5), TASK, lambda: Grows(how, fails=1))
    loop = Sequential([lone], [lone.initial()], torch.device("cpu"))
    assert "for a moment" in str(loop.step().errors["m"])
    held = loop.state(0).buffers
    assert list(held) == ["mean"]
    assert torch.equal(held["mean"], torch.zeros(1, 12, dtype=torch.int64 if how == "promoted" else None))
    network: Any = lone.network
    assert how != "filled" or network.later is None
    assert how != "shared" or network.other.mean is network.mean

"""Who may share a stack: networks that differ in nothing but the numbers in their tensors."""

from __future__ import annotations

import copy
import functools
from collections import deque
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from networks import MLP, labelled
from torch import Tensor, nn

from plait.errors import InputError
from plait.fleet import Fleet, Member
from plait.fleet._alike import Describer
from plait.fleet._watch import numbers
from plait.tasks import Task

TASK = Task("t", {"train": labelled(MLP, 60)})


class Scaled(nn.Module):
    """Multiplies its output by what an attribute says."""

    def __init__(self, held: Any, read: Any) -> None:
        super().__init__()
        self.inner, self.held, self.read = nn.Linear(12, 3).double(), held, read

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.read(self.held)


class Slotted:
    __slots__ = ("level",)

    def __init__(self, level: float) -> None:
        self.level = level


def enclosing(level: float) -> Any:
    return lambda: level


def defaulting(level: float) -> Any:
    def given(x: float = level, *, y: float = 1.0) -> float:
        return x * y

    return given


def hidden(level: float) -> nn.Module:
    made = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(made.weight, level)
    return made


#: What an attribute may hold, made of a number; and how forward reads it.
HOLDERS: dict[str, tuple[Any, Any]] = {
    "list": (lambda k: [k], lambda held: held[0]),
    "dict": (lambda k: {"k": {"k": k}}, lambda held: held["k"]["k"]),
    "deque": (lambda k: deque([k]), lambda held: held[0]),
    "set": (lambda k: {k}, max),
    "namespace": (lambda k: SimpleNamespace(level=k), lambda held: held.level),
    "slots": (Slotted, lambda held: held.level),
    "tensor": (lambda k: torch.tensor([k]).double(), lambda held: held),
    "array": (lambda k: np.array([k]), lambda held: float(held[0])),
    "closure": (enclosing, lambda held: held()),
    "default": (defaulting, lambda held: held()),
    "partial": (lambda k: functools.partial(float, k), lambda held: held()),
    "method": (lambda k: [k].count, lambda held: 1.0 + held(3.0)),
    "bound method": (lambda k: SimpleNamespace(level=k).__repr__, lambda held: held.__self__.level),
    "hidden network": (lambda k: [hidden(k)], lambda held: held[0].weight.detach().sum()),
    "bool": (lambda k: k > 2, lambda held: 1.0 + held),
}


def fleet(networks: list[nn.Module], backend: Any, **settings: Any) -> Fleet:
    own = [
        Member(name=f"m{i}", start=network, steps=12, lr=0.02, seed=i, batch_size=10, **settings)
        for i, network in enumerate(networks)
    ]
    return Fleet(own, TASK, backend=backend).fit()


def gap(one: Fleet, two: Fleet) -> float:
    """The largest difference in any weight or buffer."""
    found = 0.0
    for name in one:
        a, b = one.state(name), two.state(name)
        for key, tensor in {**a.parameters, **a.buffers}.items():
            other = {**b.parameters, **b.buffers}[key]
            found = max(found, float((tensor.double() - other.double()).abs().max()))
    return found


def made(kind: str, levels: tuple[float, ...]) -> list[nn.Module]:
    make, read = HOLDERS[kind]
    networks = []
    for i, level in enumerate(levels):
        torch.manual_seed(i)
        networks.append(Scaled(make(level), read))
    return networks


@pytest.mark.parametrize("kind", HOLDERS)
def test_members_that_differ_in_what_an_attribute_holds_have_stacks_of_their_own(kind):
    levels = (1.0, 3.0, 1.0)
    alone = fleet(made(kind, levels), "sequential")
    with pytest.raises(InputError, match=r"`m0` and `m1` can't share a stack: .* attribute `held`"):
        fleet(made(kind, levels), "stacked")
    assert gap(fleet(made(kind, levels), "auto"), alone) < 1e-12
    assert len(fleet(made(kind, levels), "auto").choices) == 2


@pytest.mark.parametrize("kind", HOLDERS)
def test_members_whose_attributes_are_made_alike_share_a_stack(kind):
    levels = (3.0, 3.0, 3.0)
    assert gap(fleet(made(kind, levels), "stacked"), fleet(made(kind, levels), "sequential")) < 1e-12


def test_what_holds_itself_is_described():
    def ring(level: float) -> list[Any]:
        held: list[Any] = [level]
        held.append({"again": held})
        return held

    describe = Describer(nn.Linear(1, 1))
    assert describe(ring(1.0)) == describe(ring(1.0)) != describe(ring(2.0))


def test_plain_values_of_unlike_types_are_not_alike():
    describe = Describer(nn.Linear(1, 1))
    assert len({describe(value) for value in (1, 1.0, True, "1", np.float64(1), 1 + 0j, b"1")}) == 7
    assert describe(float("nan")) == describe(float("nan"))
    assert describe([1] * 500) == describe([1] * 500) != describe([1] * 499 + [2])
    assert describe(object()) != describe(object())
    assert describe(range(3)) == describe(range(3)) != describe(range(4))


def test_every_number_of_a_large_tensor_counts():
    describe = Describer(nn.Linear(1, 1))
    one = torch.arange(300_000.0)
    two = one.clone()
    two[123_457] += 1
    assert describe(one) == describe(one.clone()) != describe(two)


def activation() -> Any:
    return lambda x: torch.relu(x) * 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.TransformerEncoderLayer(8, 2, activation=activation()),
        lambda: nn.LSTM(4, 4, 2),
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
    ],
)
def test_networks_made_twice_by_one_function_are_alike(make):
    first, second = make(), make()
    assert numbers(first) == numbers(second) == numbers(copy.deepcopy(first))


class Held(nn.Module):
    """Holds a weight once more, where nothing finds it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(12, 3).double()
        self.weights = [self.inner.weight]

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + torch.tanh(x @ self.weights[0].T)


def shrink(parameter: Any) -> None:
    parameter.grad.mul_(0.1)


def hooked(kind: str) -> nn.Module:
    network = nn.Sequential(nn.Linear(12, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    weight: Any = network[0].weight
    if kind == "hook":
        weight.register_hook(lambda g: g * 0.1)
    if kind == "accumulated":
        weight.register_post_accumulate_grad_hook(shrink)
    if kind == "module":
        network[2].register_full_backward_hook(lambda m, gi, go: tuple(g * 0.1 for g in gi))
    return network


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (functools.partial(hooked, "hook"), "parameter `0.weight` has a hook on its gradient"),
        (functools.partial(hooked, "accumulated"), "parameter `0.weight` has a hook on its gradient"),
        (functools.partial(hooked, "module"), r"module `2` \(Linear\) has a hook on its gradients"),
        (Held, r"the network \(Held\) holds `inner.weight` once more in its attribute `weights`"),
    ],
)
def test_what_stacks_do_not_reach_is_refused_by_name(make, named):
    own = [Member(name=f"m{i}", steps=12, lr=0.02, seed=i, optimizer="sgd") for i in range(3)]
    with pytest.raises(InputError, match=named) as caught:
        Fleet(own, TASK, model=make, backend="stacked").fit()
    assert 'backend="sequential"' in str(caught.value)
    alone, auto = (Fleet(own, TASK, model=make, backend=kind).fit() for kind in ("sequential", "auto"))
    assert gap(auto, alone) == 0
    assert {choice.kind for choice in auto.choices.values()} == {"sequential"}
    if make is not Held:
        plain = Fleet(own, TASK, model=functools.partial(hooked, ""), backend="sequential").fit()
        assert gap(alone, plain) > 1e-4

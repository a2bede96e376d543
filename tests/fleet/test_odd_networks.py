"""Networks that do more than arithmetic: what stacks, what is refused; nothing is frozen silently."""

from __future__ import annotations

import random
import warnings
from typing import Any

import pytest
import torch
from networks import MLP, labelled, task
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

from plait.errors import InputError
from plait.fleet import Fleet, Member
from plait.tasks import Task, copied

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


LEVEL = 1.0
LEVELS = {"now": 1.0}


def level() -> float:
    return LEVEL


class State:
    level = 1.0


STATE = State()


class Globally(Base):
    """Looks at a number outside, through a function."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * level()

    @staticmethod
    def put(value: float) -> None:
        globals()["LEVEL"] = value


class InTable(Base):
    """Looks at a table outside."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * LEVELS["now"]

    @staticmethod
    def put(value: float) -> None:
        LEVELS["now"] = value


class InObject(Base):
    """Looks at an object outside."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * STATE.level

    @staticmethod
    def put(value: float) -> None:
        STATE.level = value


class InClass(Base):
    """Looks at its class."""

    level = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.level

    @staticmethod
    def put(value: float) -> None:
        InClass.level = value


def enclosed() -> tuple[Any, Any]:
    held = 1.0

    def scaled(x: Tensor) -> Tensor:
        return x * held

    def put(value: float) -> None:
        nonlocal held
        held = value

    return scaled, put


class InClosure(Base):
    """Looks at what a function encloses."""

    scaled, put = map(staticmethod, enclosed())

    def forward(self, x: Tensor) -> Tensor:
        return self.scaled(super().forward(x))


class Halving:
    """Changes what networks look at, in the middle of training."""

    def __init__(self, put: Any) -> None:
        self.put = put

    def on_round(self, fleet: Fleet, validated: Any) -> None:
        if fleet.round == 20:
            self.put(0.5)


@pytest.mark.parametrize("network", [Globally, InTable, InObject, InClass, InClosure])
def test_what_networks_see_outside_is_never_frozen(network: Any) -> None:
    ended = []
    for backend in ("stacked", "sequential"):
        network.put(1.0)
        fleet = Fleet(MEMBERS, task(MLP), model=network, backend=backend)
        ended.append(fleet.fit(quiet=True, callbacks=[Halving(network.put)]))
    network.put(1.0)
    unchanged = fitted(network, "stacked")
    assert gap(*ended) < 1e-10
    assert gap(ended[0], unchanged) > 1e-3


def fitted(network: type[nn.Module], backend: Any) -> Fleet:
    return Fleet(MEMBERS, task(MLP), model=network, backend=backend).fit()


def gap(one: Fleet, two: Fleet) -> float:
    pairs = [(one.state(m.name).parameters, two.state(m.name).parameters) for m in MEMBERS]
    return max(float((a[n] - b[n]).abs().max()) for a, b in pairs for n in a)


@pytest.mark.parametrize("network", [Base, Unused, Caching])
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


class Recurrent(nn.Module):
    def __init__(self, kind: Any, dropout: float) -> None:
        super().__init__()
        self.inner = kind(3, 4, 2, dropout=dropout, batch_first=True)
        self.last = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.inner(x.view(len(x), 4, 3))[0][:, -1])


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_a_recurrent_layers_own_dropout_is_named(kind: Any) -> None:
    own = [Member(name=name, steps=2) for name in "ab"]
    message = rf"module `inner` \({kind.__name__}\) can't be stacked: a recurrent layer's own dropout"
    with pytest.raises(InputError, match=message):
        Fleet(own, task(MLP), model=lambda: Recurrent(kind, 0.3).double(), backend="stacked").fit()


def test_pytorchs_advice_on_vmap_is_for_its_makers() -> None:
    splits: Any = {"train": labelled(MLP, 40, dtype=torch.float32)}
    own = [Member(name=name, steps=6, batch_size=8) for name in "ab"]

    class Warns(Recurrent):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            warnings.warn("of the network's own", UserWarning, stacklevel=1)
            return super().forward(x)

    # what PyTorch and Numba import only now makes Python forget what it has warned of
    Fleet(own, Task("t", splits), model=lambda: Recurrent(nn.LSTM, 0), backend="stacked").fit()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        Fleet(own, Task("t", splits), model=lambda: Warns(nn.LSTM, 0), backend="stacked").fit()
    assert [str(warning.message) for warning in told] == ["of the network's own"]


class Text(nn.Module):
    """Reads texts that are filled up with 0; what it makes of their numbers is Python's."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.last, self.other = nn.Embedding(9, 4), nn.Linear(4, 3), nn.Linear(4, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.words(x).sum(1)) * len(x) / self.counted(x)

    def counted(self, x: Tensor) -> float:
        raise NotImplementedError


class Masked(Text):
    def counted(self, x: Tensor) -> float:
        return len(x[x != 0])


class Found(Text):
    def counted(self, x: Tensor) -> float:
        return len(torch.nonzero(x))


class Listed(Text):
    def counted(self, x: Tensor) -> float:
        return max((x != 0).sum(1).tolist())


class Numbered(Text):
    def counted(self, x: Tensor) -> float:
        return int((x != 0).sum(1).max())


class Choosing(Text):
    """Which of its layers learns depends on the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return (self.last if x[0, 0] > 4 else self.other)(self.words(x).mean(1))


class Packed(Text):
    def forward(self, x: Tensor) -> Tensor:
        owner = torch.repeat_interleave(torch.arange(len(x)), (x != 0).sum(1))
        words = self.words(x[x != 0])
        return self.last(words.new_zeros(len(x), 4).index_add(0, owner, words))


@pytest.mark.parametrize("network", [Masked, Found, Listed, Numbered, Choosing, Packed])
@pytest.mark.parametrize("count", [1, 3])
def test_numbers_that_python_code_reads_of_a_shared_batch_are_not_frozen(
    network: type[nn.Module], count: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(1, 9, (40, 6), generator=generator)
    words[torch.arange(6) >= torch.randint(2, 7, (40, 1), generator=generator)] = 0
    learned = Task("texts", {"train": (words, words[:, 0] % 3)})
    own = [
        Member(name=f"m{i}", seed=i, data_seed=0, steps=12, batch_size=2, lr=0.01 * (1 + i))
        for i in range(count)
    ]
    with pytest.raises(InputError, match=r"can't be stacked: .* numbers in a tensor"):
        Fleet(own, learned, model=network, backend="stacked").fit()
    fleets = [Fleet(own, learned, model=network, backend=kind).fit() for kind in ("sequential", "auto")]
    for name in fleets[0]:
        one, two = (fleet[name].state_dict() for fleet in fleets)
        assert all(torch.equal(one[key], two[key]) for key in one)


def hooked() -> nn.Module:
    made = nn.Linear(6, 3).double()
    mask = torch.tensor([1.0, 1, 0, 0, 0, 0]).double()
    made.weight.register_hook(lambda gradient: gradient * mask)
    return made


class Warms(nn.Module):
    """Its hook counts, and leaves out the first gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.calls = nn.Linear(6, 3).double(), 0
        self.last.weight.register_hook(self.warm)

    def warm(self, gradient: Tensor) -> Tensor:
        self.calls += 1
        return gradient * (self.calls > 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x)


def pruned() -> nn.Module:
    made = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    prune.l1_unstructured(made[0], "weight", 0.5)
    return made


@pytest.mark.parametrize("make", [hooked, pruned, Warms])
@pytest.mark.parametrize("backend", ["sequential", "auto"])
@pytest.mark.parametrize("given", ["model", "start"])
def test_a_module_trains_as_it_would_itself(make: Any, backend: Any, given: str) -> None:
    data = torch.randn(24, 6, generator=torch.Generator().manual_seed(0)).double(), torch.arange(24) % 3
    own = make()
    plain, start = copied(own), copied(own).state_dict()
    settings: dict[str, Any] = {"steps": 9, "lr": 0.1, "batch_size": 24, "optimizer": "sgd"}
    if given == "start":
        settings["start"] = own
    members = [Member(name=f"m{i}", seed=i, weight_decay=0.0, **settings) for i in range(2)]
    model = own if given == "model" else None
    fleet = Fleet(members, Task("t", {"train": data}), model=model, backend=backend).fit()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    for _ in range(9):
        optimizer.zero_grad()
        F.cross_entropy(plain(data[0]), data[1]).backward()
        optimizer.step()
    for name in fleet:
        torch.testing.assert_close(fleet[name].state_dict(), plain.state_dict(), rtol=0, atol=1e-12)
    if make is hooked:
        assert torch.equal(fleet["m0"].state_dict()["weight"][:, 2:], start["weight"][:, 2:])
    elif make is Warms:
        assert own.calls == 0
    else:
        assert torch.equal(own.state_dict()["0.weight_orig"], start["0.weight_orig"])

"""Objects that networks use and user's code changes between steps: a stack is exact, or refuses."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from networks import MLP, task
from torch import Tensor, nn

from plait.errors import InputError
from plait.fleet import Fleet, Member
from plait.fleet._held import Held
from plait.tasks import CrossEntropy, Task

TASK = task(MLP)
MEMBERS = [Member(name=f"m{i}", seed=i, steps=14, lr=0.02 * (1 + i)) for i in range(3)]


class Schedule:
    """Something of the user's that a callback steps."""

    def __init__(self, value: float = 1.0) -> None:
        self.value = value

    @property
    def level(self) -> float:
        return self.value

    def get(self) -> float:
        return self.value


class Slotted:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 1.0


class Scaled(nn.Module):
    """Multiplies what it computes by what `read` finds."""

    def __init__(self, read: Callable[[], Any], held: Any = None) -> None:
        super().__init__()
        self.inner, self.read, self.held = nn.Linear(12, 3).double(), read, held

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.read()


ARRAY, TENSOR, SCHEDULE, SPACE = np.ones(1), torch.ones(1), Schedule(), SimpleNamespace(value=1.0)
TABLE, LIST, SLOTS = {"a": np.ones(1)}, [Schedule()], Slotted()
#: How forward reads an object outside, and how it is changed.
OUTSIDE: dict[str, tuple[Callable[[], Any], Callable[[float], Any]]] = {
    "array": (lambda: float(ARRAY[0]), ARRAY.fill),
    "tensor": (lambda: float(TENSOR), TENSOR.data.fill_),
    "property": (lambda: SCHEDULE.level, lambda k: setattr(SCHEDULE, "value", k)),
    "method": (lambda: SCHEDULE.get() * 1, lambda k: setattr(SCHEDULE, "value", k)),
    "namespace": (lambda: SPACE.value, lambda k: setattr(SPACE, "value", k)),
    "table of arrays": (lambda: float(TABLE["a"][0]), TABLE["a"].fill),
    "list of objects": (lambda: LIST[0].value, lambda k: setattr(LIST[0], "value", k)),
    "slots": (lambda: SLOTS.value, lambda k: setattr(SLOTS, "value", k)),
}


class Anneals:
    """Changes something after each round from the eighth on."""

    def __init__(self, put: Callable[[float], Any]) -> None:
        self.put = put

    def on_round(self, fleet: Fleet, validated: Any) -> None:
        if fleet.round >= 8:
            self.put(1 + 0.1 * fleet.round)


def fitted(make: Callable[[], nn.Module], put: Callable[[float], Any], backend: Any) -> Fleet:
    put(1.0)
    fleet = Fleet(MEMBERS, TASK, model=make, backend=backend)
    return fleet.fit(quiet=True, callbacks=[Anneals(put)])


def gap(one: Fleet, two: Fleet) -> float:
    pairs = [(one.state(m.name).parameters, two.state(m.name).parameters) for m in MEMBERS]
    return max(float((a[n] - b[n]).abs().max()) for a, b in pairs for n in a)


@pytest.mark.parametrize("kind", OUTSIDE)
def test_a_stack_sees_what_changes_outside_of_its_network(kind: str) -> None:
    read, put = OUTSIDE[kind]
    loop, stack = (fitted(lambda: Scaled(read), put, backend) for backend in ("sequential", "stacked"))
    assert gap(loop, stack) < 1e-10
    assert gap(stack, Fleet(MEMBERS, TASK, model=lambda: Scaled(lambda: 1), backend="stacked").fit()) > 1e-3


class Holding(nn.Module):
    """Multiplies by what an object that it holds says."""

    def __init__(self, held: Any, read: Callable[[Any], Any]) -> None:
        super().__init__()
        self.inner, self.held, self.read = nn.Linear(12, 3).double(), held, read

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.read(self.held)


#: What an attribute holds, how forward reads it, and how it is changed in place.
HELD: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any, float], Any]]] = {
    "object": (Schedule, lambda held: held.value, lambda held, k: setattr(held, "value", k)),
    "slots": (Slotted, lambda held: held.value, lambda held, k: setattr(held, "value", k)),
    "list": (lambda: [1.0], lambda held: held[0], lambda held, k: held.__setitem__(0, k)),
    "longer list": (lambda: [0.0], len, lambda held, k: held.append(k)),
    "deque": (lambda: deque([1.0]), lambda held: held[0], lambda held, k: held.__setitem__(0, k)),
    "dict": (lambda: {"a": [1.0]}, lambda held: held["a"][0], lambda held, k: held["a"].__setitem__(0, k)),
    "long table": (
        lambda: dict.fromkeys(range(99), 1.0),
        lambda held: held[7],
        lambda held, k: held.update({7: k}),
    ),
    "set": (lambda: {0.5}, max, lambda held, k: held.add(k)),
    "array": (lambda: np.ones(2), lambda held: float(held[1]), lambda held, k: held.fill(k)),
    "tensor": (lambda: torch.ones(2), lambda held: float(held[1]), lambda held, k: held.data.fill_(k)),
    "large tensor": (lambda: torch.ones(1 << 18), lambda held: float(held[1]), lambda held, k: held.fill_(k)),
}


@pytest.mark.parametrize("kind", HELD)
def test_auto_goes_on_in_the_loop_once_an_object_of_a_network_changes(kind: str) -> None:
    make, read, change = HELD[kind]
    fleets = []
    for backend in ("sequential", "auto"):
        held = make()

        def put(value: float, held: Any = held) -> None:
            if value != 1:
                change(held, value)

        fleets.append(fitted(lambda held=held: Holding(held, read), put, backend))
    assert gap(*fleets) < 1e-10
    assert (
        gap(fleets[0], Fleet(MEMBERS, TASK, model=lambda: Holding(make(), read), backend="stacked").fit())
        > 1e-3
    )


def test_a_stack_whose_network_was_changed_ends_with_one_message_and_can_go_on() -> None:
    held = Schedule()
    anneals = Anneals(lambda k: setattr(held, "value", k))
    fleet = Fleet(MEMBERS, TASK, model=lambda: Holding(held, Schedule.get), backend="stacked")
    with pytest.raises(
        InputError, match=r"\(Holding\) can't be stacked: `held` was changed between two"
    ) as caught:
        fleet.fit(quiet=True, callbacks=[anneals])
    assert 'backend="sequential"' in str(caught.value)
    assert fleet.round == 8
    held.value, at_eight = 1.0, {}

    class Notes(Anneals):
        def on_round(self, fleet: Fleet, validated: Any) -> None:
            if fleet.round == 8:
                at_eight.update({m.name: fleet.state(m.name) for m in MEMBERS})
            super().on_round(fleet, validated)

    loop = Fleet(MEMBERS, TASK, model=lambda: Holding(held, Schedule.get), backend="sequential")
    loop.fit(quiet=True, callbacks=[Notes(anneals.put)])
    for name, wanted in at_eight.items():  # all steps until then are there
        found = fleet.state(name)
        assert found.step == wanted.step == 8
        for key, value in wanted.parameters.items():
            torch.testing.assert_close(found.parameters[key], value, rtol=1e-10, atol=1e-10)


class Own(nn.Module):
    """Reads plain attributes, drops some of what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.dropout, self.level = nn.Linear(12, 3).double(), nn.Dropout(0.2), 1.0
        self.normal = nn.BatchNorm1d(12).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.inner(self.normal(x))) * self.level * getattr(self, "further", 1)


def louder(module: nn.Module, inputs: Any, outputs: Tensor) -> Tensor:
    return outputs * 2


#: What a callback does to one network or another.
CHANGES: dict[str, Callable[[Any], Any]] = {
    "level": lambda network: setattr(network, "level", 2.0),
    "dropout.p": lambda network: setattr(network.dropout, "p", 0.6),
    "further": lambda network: setattr(network, "further", 3),
    "frozen": lambda network: network.inner.requires_grad_(False),
    "gradient's hook": lambda network: network.inner.weight.register_hook(lambda gradient: gradient * 0.5),
    "normal.training": lambda network: network.normal.eval(),
    "inner._forward_hooks": lambda network: network.inner.register_forward_hook(louder),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_networks_hold_themselves_may_change(change: str) -> None:
    """Of the first member, and (a number) of another one."""
    own = [Member(name=m.name, seed=m.seed, steps=14, lr=m.lr, batch_size=10) for m in MEMBERS]
    for who in (0, 2) if change in ("level", "dropout.p", "frozen", "gradient's hook") else (0,):
        ended = []
        for backend in ("sequential", "auto"):
            made: list[nn.Module] = []

            def make(made: list[nn.Module] = made) -> nn.Module:
                made.append(Own())
                return made[-1]

            def put(value: float, made: list[nn.Module] = made, who: int = who) -> None:
                if round(value, 9) == 1.8:
                    CHANGES[change](made[who])

            fleet = Fleet(own, TASK, model=make, backend=backend)
            ended.append(fleet.fit(quiet=True, callbacks=[Anneals(put)]))
        assert gap(*ended) < 1e-10
        assert gap(ended[0], Fleet(own, TASK, model=Own, backend="stacked").fit()) > 1e-4


def test_an_equal_value_put_anew_is_no_change() -> None:
    held = Schedule()

    def put(value: float) -> None:
        held.value = float(f"{value:.0e}") * 0 + 1  # another object that is equal

    fleet = fitted(lambda: Holding(held, Schedule.get), put, "stacked")
    assert gap(fleet, fitted(lambda: Holding(held, Schedule.get), put, "sequential")) < 1e-10


def test_a_module_whose_mode_changes_is_no_longer_stacked() -> None:
    made: list[Any] = []

    def make() -> nn.Module:
        made.append(Own())
        return made[-1]

    own = [Member(name=m.name, seed=m.seed, steps=14, batch_size=10, drop_last=True) for m in MEMBERS]
    fleet = Fleet(own, TASK, model=make, backend="stacked")
    with pytest.raises(InputError, match=r"`normal.training` was changed between two steps"):
        fleet.fit(quiet=True, callbacks=[Anneals(lambda _: made[0].normal.eval())])
    assert fleet.round == 8


def joined_by(late: Sequence[Member]) -> Fleet:
    """A fleet whose first network a callback changes, before others join."""
    made: list[Any] = []

    def make() -> nn.Module:
        made.append(Own())
        return made[-1]

    own = [Member(name=m.name, seed=m.seed, steps=14, lr=m.lr, batch_size=10) for m in MEMBERS]
    fleet = Fleet(own, TASK, model=make, backend="sequential")

    def put(_: float) -> None:
        made[0].normal.eval()
        for member in late:
            if member.name not in fleet:
                fleet.add(member)

    return fleet.fit(quiet=True, callbacks=[Anneals(put)])


def test_a_module_that_a_callback_puts_at_rest_stays_so_when_others_join() -> None:
    fleet = joined_by([Member(name="late", steps=3)])
    assert fleet.status["late"] == "finished"
    assert gap(fleet, joined_by([])) == 0


def test_weights_that_a_callback_writes_into_end_a_stack() -> None:
    made: list[Any] = []

    def make() -> nn.Module:
        made.append(Own())
        return made[-1]

    own = [Member(name=m.name, seed=m.seed, steps=14, batch_size=10) for m in MEMBERS]
    fleet = Fleet(own, TASK, model=make, backend="stacked")
    with pytest.raises(InputError, match=r"`inner.weight` was changed between two steps"):
        fleet.fit(quiet=True, callbacks=[Anneals(lambda _: nn.init.zeros_(made[1].inner.weight))])


class Weighted(CrossEntropy):
    """A loss of the user's that looks at a number outside."""

    def __call__(self, outputs: Any, batch: Any) -> tuple[Tensor, Tensor]:
        values, weights = super().__call__(outputs, batch)
        return values * SCHEDULE.value, weights


def test_a_stack_sees_what_changes_in_a_loss() -> None:
    ended = list[Fleet]()
    backends: tuple[Any, ...] = ("sequential", "stacked")
    for backend in backends:
        SCHEDULE.value = 1.0
        learned = Task("weighted", dict(TASK.splits), loss=Weighted())
        fleet = Fleet(MEMBERS, learned, model=lambda: MLP().double(), backend=backend)
        ended.append(fleet.fit(quiet=True, callbacks=[Anneals(lambda k: setattr(SCHEDULE, "value", k))]))
    SCHEDULE.value = 1.0
    assert gap(*ended) < 1e-10


COUNT, CACHE = [0], dict[int, float]()


class CountsInClass(Scaled):
    calls = 0

    def __init__(self) -> None:
        super().__init__(lambda: 1 + 0.01 * (CountsInClass.calls % 7))

    def forward(self, x: Tensor) -> Tensor:
        CountsInClass.calls += 1
        return super().forward(x)


class CountsOutside(Scaled):
    def __init__(self) -> None:
        super().__init__(lambda: 1 + 0.01 * (COUNT[0] % 7))

    def forward(self, x: Tensor) -> Tensor:
        COUNT[0] += 1
        return super().forward(x)


class CachesOutside(Scaled):
    """Fills a table in its first call for each number of rows."""

    def __init__(self) -> None:
        super().__init__(lambda: 1.0)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) not in CACHE:
            CACHE[len(x)] = 1.0 + len(x)
        return super().forward(x) * CACHE[len(x)]


@pytest.mark.parametrize(("network", "place"), [(CountsInClass, "calls"), (CountsOutside, "COUNT")])
def test_a_network_that_counts_outside_of_itself_is_refused(network: type[nn.Module], place: str) -> None:
    with pytest.raises(InputError, match=f"each step changes `{place}`, outside of it"):
        Fleet(MEMBERS, TASK, model=network, backend="stacked").fit()
    fleet = Fleet(MEMBERS, TASK, model=network, backend="auto").fit()
    assert {choice.kind for choice in fleet.choices.values()} == {"sequential"}


def test_a_cache_outside_that_is_filled_once_is_no_count() -> None:
    CACHE.clear()
    stack = Fleet(MEMBERS, TASK, model=CachesOutside, backend="stacked").fit()
    assert gap(stack, Fleet(MEMBERS, TASK, model=CachesOutside, backend="sequential").fit()) < 1e-10


def test_numbers_that_are_no_numbers_are_the_same_again() -> None:
    held = Held()
    array, tensor, names = np.array([np.nan]), torch.tensor([np.nan]), np.array(["a"], dtype=object)
    held.value([array, tensor, names], "list")
    assert held.same()
    names[0] = "b"
    assert not held.same()
    assert held.changed(lambda now, before: now == before) == "list"


def test_an_object_that_holds_itself_is_walked_through_once() -> None:
    ring: list[Any] = []
    ring.append(ring)
    held = Held()
    held.value(ring, "ring")
    assert held.same()
    assert len(held.reached) == 1
    ring.append(1)
    assert not held.same()

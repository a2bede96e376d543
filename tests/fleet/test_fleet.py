"""Who is in a fleet, how members end, and that the others don't notice."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from networks import MLP, labelled, task
from torch import nn

from plait.fleet import After, Fleet, FleetWarning, Member
from plait.tasks import Columns, Task

BACKENDS = pytest.mark.parametrize("backend", ["sequential", "stacked"])


def double(**kwargs: Any) -> nn.Module:
    return MLP(**kwargs).double()


def members(count: int, **settings: Any) -> list[Member]:
    return [
        Member(**({"name": f"m{i}", "seed": i, "steps": 30, "lr": 0.01} | settings)) for i in range(count)
    ]


class At:
    """Does something after a round."""

    def __init__(self, number: int, act: Callable[[Fleet], None]) -> None:
        self.number, self.act = number, act

    def on_round(self, fleet: Fleet, validated: object) -> None:
        if fleet.round == self.number:
            self.act(fleet)


def gap(one: Fleet, two: Fleet, name: str) -> float:
    first, second = one.state(name), two.state(name)
    assert first.step == second.step
    return max((first.parameters[n] - second.parameters[n]).abs().max().item() for n in first.parameters)


@BACKENDS
def test_a_member_that_is_dropped_keeps_its_weights_and_the_others_go_on(backend: Any) -> None:
    learned = task(MLP)
    whole = Fleet(members(4), learned, model=double, backend=backend).fit()
    fleet = Fleet(members(4), learned, model=double, backend=backend)
    fleet.fit(callbacks=[At(10, lambda f: f.drop("m1", "no longer wanted"))])
    assert fleet.status == {"m0": "finished", "m1": "dropped", "m2": "finished", "m3": "finished"}
    assert fleet.state("m1").step == 10
    short = Fleet(members(4, steps=10), learned, model=double, backend=backend).fit()
    allowed = 0 if backend == "sequential" else 1e-12
    assert gap(fleet, short, "m1") <= allowed
    for name in ("m0", "m2", "m3"):
        assert gap(fleet, whole, name) <= allowed


@BACKENDS
def test_a_member_that_joins_later_trains_as_if_it_were_alone(backend: Any) -> None:
    learned = task(MLP)
    late = Member(name="late", seed=9, steps=25, lr=0.02)
    fleet = Fleet(members(2), learned, model=double, backend=backend)
    fleet.fit(callbacks=[At(7, lambda f: f.add(late))])
    assert fleet.status["late"] == "finished"
    assert fleet.round == 7 + 25
    lone = Fleet([late], learned, model=double, backend="sequential").fit()
    whole = Fleet(members(2), learned, model=double, backend="sequential").fit()
    allowed = 0 if backend == "sequential" else 1e-12
    assert gap(fleet, lone, "late") <= allowed
    assert max(gap(fleet, whole, name) for name in ("m0", "m1")) <= allowed


@BACKENDS
def test_a_member_may_start_from_what_another_has_become(backend: Any) -> None:
    learned = task(MLP)
    child = Member(name="child", start=After("m0"), steps=1, lr=0, weight_decay=0, batch_size=70)
    fleet = Fleet([child, *members(2)], learned, model=double, backend=backend).fit()
    assert fleet.status["child"] == "finished"
    assert gap_of(fleet, "child", "m0") == 0
    assert gap_of(fleet, "child", "m1") > 0


def gap_of(fleet: Fleet, one: str, two: str) -> float:
    first, second = fleet.state(one).parameters, fleet.state(two).parameters
    return max((first[n] - second[n]).abs().max().item() for n in first)


@BACKENDS
def test_numbers_that_are_not_finite_end_their_member_alone(backend: Any) -> None:
    good, bad = labelled(MLP, 50), labelled(MLP, 50)
    inputs = bad.columns["input"].clone()
    inputs[17, 3] = torch.nan
    spoilt = Task("spoilt", {"train": Columns({"input": inputs, "label": bad.columns["label"]})})
    fine = Task("fine", {"train": good})
    own = [
        Member(name=f"m{i}", task=t, steps=30, seed=i, batch_size=8)
        for i, t in enumerate((fine, spoilt, fine))
    ]
    fleet = Fleet(own, model=double, backend=backend)
    with pytest.warns(FleetWarning, match=r"member `m1` failed: its loss was not finite at step \d"):
        fleet.fit()
    assert fleet.status == {"m0": "finished", "m1": "failed", "m2": "finished"}
    state = fleet.state("m1")
    assert all(torch.isfinite(t).all() for t in state.parameters.values())
    assert state.step < 7
    lone = Fleet([own[2]], model=double, backend="sequential").fit()
    assert gap(fleet, lone, "m2") < 1e-12


@BACKENDS
def test_patience_stops_a_member_and_keep_gives_its_best_weights(backend: Any) -> None:
    learned = task(MLP, 30)
    own = members(2, steps=400, lr=0.05, evaluate_every=10, patience=3, keep="best", weight_decay=0)
    fleet = Fleet(own, learned, model=double, backend=backend).fit()
    for name in fleet:
        values = [r["value"] for r in fleet.history if r["member"] == name and "value" in r]
        trainee = fleet._roster.trainees[name]
        assert trainee.best == max(values)
        if fleet.status[name] == "stopped":
            assert values.index(max(values)) == len(values) - 1 - 4
            assert trainee.step == len(values) * 10
        with torch.no_grad():
            batch = learned.splits["validation"].batch(range(40))
            right = fleet[name](batch["input"]).argmax(1) == batch["label"]
        assert right.double().mean().item() == pytest.approx(max(values))
    assert "stopped" in fleet.status.values()


def test_a_member_is_a_plain_module_and_a_copy() -> None:
    fleet = Fleet(members(2), task(MLP), model=double, backend="stacked").fit()
    network = fleet["m1"]
    assert type(network) is MLP
    assert not network.training
    before = fleet.state("m1").parameters["first.weight"].clone()
    with torch.no_grad():
        network.first.weight.zero_()
    assert torch.equal(fleet.state("m1").parameters["first.weight"], before)


def test_history_has_losses_and_validations_of_every_member() -> None:
    fleet = Fleet(members(2, evaluate_every=15), task(MLP), model=double, log_every=6).fit()
    for name in fleet:
        steps = [r["step"] for r in fleet.history if r["member"] == name and "loss" in r]
        assert steps == [6, 12, 18, 24, 30]
        assert [r["step"] for r in fleet.history if r["member"] == name and "value" in r] == [15, 30]


def test_a_start_is_a_module_a_function_or_a_checkpoint(tmp_path: Any) -> None:
    from safetensors.torch import save_model

    torch.manual_seed(5)
    kept = double()
    save_model(kept, str(tmp_path / "model.safetensors"))
    still = {"steps": 1, "lr": 0, "weight_decay": 0}
    own = [
        Member(name="module", start=kept, **still),
        Member(name="function", start=functools.partial(double, width=16), seed=5, **still),
        Member(name="checkpoint", start=tmp_path / "model.safetensors", **still),
    ]
    fleet = Fleet(own, task(MLP), model=double).fit()
    for name in fleet:
        assert torch.equal(fleet[name].first.weight, kept.first.weight)


def test_auto_records_what_it_measured_and_takes_the_fastest() -> None:
    fleet = Fleet(members(6), task(MLP), model=double).fit()
    (choice,) = fleet.choices.values()
    assert set(choice.seconds) == {"sequential × 6", "stacked × 6", "stacked × 4"}
    assert f"{choice.kind} × {choice.size}" == min(choice.seconds, key=lambda k: choice.seconds[k])
    lone = Fleet(members(6), task(MLP), model=double, backend="sequential").fit()
    assert max(gap(fleet, lone, name) for name in fleet) < 1e-10


def test_auto_puts_members_that_differ_into_groups_of_their_own() -> None:
    narrow = members(2)
    wide = [Member(name=f"w{i}", start=functools.partial(double, width=32), steps=30) for i in range(2)]
    fleet = Fleet([*narrow, *wide], task(MLP), model=double).fit()
    assert len(fleet.choices) == 2
    assert set(fleet.status.values()) == {"finished"}


@BACKENDS
def test_who_waits_for_a_member_that_never_trains_starts_from_its_start(backend: Any) -> None:
    pair = [*members(1), Member(name="child", start=After("m0"), steps=2, lr=0.01)]
    fleet = Fleet(pair, task(MLP), model=double, backend=backend)
    fleet.drop("m0")
    assert fleet.fit().status == {"m0": "dropped", "child": "finished"}


@BACKENDS
def test_training_leaves_the_callers_random_numbers_alone(backend: Any) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    Fleet(members(2, steps=3), task(MLP), model=double, backend=backend).fit()
    assert torch.equal(torch.rand(2), expected)


@BACKENDS
def test_a_fleets_threads_are_the_processs_while_it_trains(backend: Any) -> None:
    seen = []
    look = At(1, lambda f: seen.append((torch.get_num_threads(), f.place.threads)))
    Fleet(members(2, steps=1), task(MLP), model=double, backend=backend, threads=2).fit(callbacks=[look])
    assert torch.get_num_threads() == 1
    Fleet(members(2, steps=1), task(MLP), model=double, backend=backend).fit(callbacks=[look])
    assert seen == [(2, 2), (1, 1)]

    def broken(fleet: Fleet) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        Fleet(members(2), task(MLP), model=double, threads=2).fit(callbacks=[At(1, broken)])
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_settings_may_be_numbers_of_numpy(kind: Any) -> None:
    fleet, plain = (
        Fleet(members(1, batch_size=size), task(MLP), model=double, backend="sequential").fit(quiet=True)
        for size in (kind(8), 8)
    )
    assert gap(fleet, plain, "m0") == 0

"""A member whose data, network or validation fails ends alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lora import GPT2_TARGETS, decoders, gpt2
from networks import MLP, task
from torch import nn

from plait.errors import InputError
from plait.fleet import Callback, Fleet, FleetWarning, Member
from plait.tasks import Batch, Task

BACKENDS = pytest.mark.parametrize("backend", ["sequential", "stacked", "auto"])


def double() -> nn.Module:
    return MLP().double()


class Damaged:
    """Examples of which some can't be read once they are damaged."""

    def __init__(self, of: Any) -> None:
        self.of, self.rows = of, set[int]()

    def __len__(self) -> int:
        return len(self.of)

    def batch(self, rows: Any) -> Batch:
        if self.rows & {int(row) for row in rows}:
            raise OSError("no such picture\nat all")
        return self.of.batch(rows)


class At(Callback):
    """Does something after a round."""

    def __init__(self, number: int, act: Callable[[Fleet], object]) -> None:
        self.number, self.act = number, act

    def on_round(self, fleet: Fleet, validated: Any) -> None:
        if fleet.round == self.number:
            self.act(fleet)


def one(name: str, seed: int = 0) -> Task:
    whole = task(MLP, name=name, seed=seed)
    return Task(name, {split: Damaged(held) for split, held in whole.splits.items()})


def fleet_of(tasks: list[Task], **kwargs: Any) -> Fleet:
    own = [
        Member(name=each.name, steps=12, seed=seed, task=each.name, batch_size=8, evaluate_every=3)
        for seed, each in enumerate(tasks)
    ]
    return Fleet(own, tasks, model=double, **kwargs)


def equal(one: Fleet, other: Fleet) -> None:
    for name in one:
        for key, value in one[name].state_dict().items():
            torch.testing.assert_close(value, other[name].state_dict()[key], rtol=1e-10, atol=1e-12)


def damage(*tasks: Task, split: str = "train") -> Callable[[Fleet], None]:
    def act(_: Fleet) -> None:
        for each in tasks:
            each.splits[split].rows.update(range(len(each.splits[split])))

    return act


@BACKENDS
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_member_whose_examples_fail_ends_alone(backend: Any, split: str, tmp_path: Path) -> None:
    alone = fleet_of([one("a"), one("b", 1), one("c", 2)], backend="sequential").fit()
    tasks = [one("a"), one("b", 1), one("c", 2)]
    fleet = fleet_of(tasks, backend=backend, out=tmp_path)
    what = "a step" if split == "train" else "its validation"
    with pytest.warns(FleetWarning, match=f"member `b` failed: {what} failed: OSError: no such picture$"):
        fleet.fit(callbacks=[At(4, damage(tasks[1], split=split))])
    assert fleet.status == {"a": "finished", "b": "failed", "c": "finished"}
    assert fleet.state("b").step == (4 if split == "train" else 6)
    assert [r["member"] for r in fleet.history if "failed" in r] == ["b"]
    for name in "ac":
        for key, value in fleet[name].state_dict().items():
            torch.testing.assert_close(value, alone[name].state_dict()[key], rtol=1e-10, atol=1e-12)
    before = fleet["b"].state_dict()
    again = fleet_of([one("a"), one("b", 1), one("c", 2)], backend=backend, out=tmp_path).fit(resume=True)
    assert again.status == fleet.status
    assert all(torch.equal(again["b"].state_dict()[key], value) for key, value in before.items())


@BACKENDS
def test_if_nobody_is_left_the_fit_ends_and_says_whose_fault_it_is(backend: Any) -> None:
    tasks = [one("a"), one("b", 1)]
    fleet = fleet_of(tasks, backend=backend)
    whose = r"one of the members `a`, `b`: a step failed: OSError: no such picture$"
    with pytest.raises(InputError, match=whose):
        fleet.fit(callbacks=[At(2, damage(*tasks))])
    assert fleet.status == {"a": "running", "b": "running"}
    lone = one("a")
    with pytest.raises(InputError, match=r"^member `a`: a step failed: OSError: no such picture$"):
        fleet_of([lone], backend=backend).fit(callbacks=[At(2, damage(lone))])


@BACKENDS
def test_what_fails_in_the_first_round_is_told_and_can_be_mended(backend: Any) -> None:
    tasks = [one("a"), one("b", 1)]
    tasks[1].splits["train"].rows.update(range(2, 70))  # the examples that are tried out can be read
    fleet = fleet_of(tasks, backend=backend)
    with pytest.raises(InputError, match=r"^member `b`: a step failed: OSError: no such picture$"):
        fleet.fit()
    tasks[1].splits["train"].rows.clear()
    equal(fleet.fit(), fleet_of([one("a"), one("b", 1)], backend="sequential").fit())


@BACKENDS
def test_a_member_that_joins_and_whose_first_step_fails_ends_alone(backend: Any) -> None:
    late = one("late", 3)
    late.splits["train"].rows.update(range(2, 70))
    joiner = Member(name="late", steps=4, task=late, batch_size=8)
    fleet = fleet_of([one("a"), one("b", 1)], backend=backend)
    with pytest.warns(FleetWarning, match="member `late` failed: a step failed: OSError"):
        fleet.fit(callbacks=[At(3, lambda fleet: fleet.add(joiner))])
    assert fleet.status == {"a": "finished", "b": "finished", "late": "failed"}


def adapters(backend: Any, base: nn.Module) -> tuple[Fleet, list[Damaged]]:
    own, held = list[Member](), list[Damaged]()
    for member in decoders(GPT2_TARGETS):
        assert isinstance(member.task, Task)
        held.append(Damaged(member.task.splits["train"]))
        own.append(replace(member, steps=5, task=replace(member.task, splits={"train": held[-1]})))
    return Fleet(own, model=base, backend=backend), held


@pytest.mark.parametrize("backend", ["sequential", "adapters"])
def test_an_adapter_whose_examples_fail_ends_alone(backend: Any) -> None:
    base = gpt2(torch.float64, 0.0)
    alone, _ = adapters("sequential", base)
    alone.fit()
    fleet, (first, *_) = adapters(backend, base)
    with pytest.warns(FleetWarning, match="member `a` failed: a step failed: OSError"):
        fleet.fit(callbacks=[At(2, lambda _: first.rows.update(range(len(first))))])
    assert fleet.status == {"a": "failed", "b": "finished", "c": "finished"}
    for name in "bc":
        for key, value in fleet.state(name).parameters.items():
            torch.testing.assert_close(value, alone.state(name).parameters[key], rtol=1e-8, atol=1e-10)

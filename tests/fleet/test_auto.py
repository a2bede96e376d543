"""How `auto` chooses, with backends of known speeds and a clock that they alone move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from networks import MLP, task

from plait.fleet import Fleet, Member
from plait.fleet import _auto as auto
from plait.fleet._auto import Choice
from plait.fleet._groups import Place, make

COUNT = 10
TRIED = auto._TRIED


class Clock:
    """Time that passes only while a backend takes a step; and which backends were made."""

    def __init__(self, seconds: Mapping[tuple[str, int], float]) -> None:
        self.seconds, self.now = seconds, 0.0
        self.made: list[tuple[str, list[str]]] = []

    def make(self, kind: str, trainees: Any, states: Any, place: Any) -> SimpleNamespace:
        assert len(states) == len(trainees)
        if kind == "sequential" and len(trainees) < COUNT:  # a glance at one
            return SimpleNamespace(step=lambda: self._pass(self.seconds[kind, COUNT] / COUNT))
        self.made.append((kind, [trainee.member.name for trainee in trainees]))
        return SimpleNamespace(step=lambda: self._pass(self.seconds[kind, len(trainees)]))

    def _pass(self, seconds: float) -> SimpleNamespace:
        self.now += seconds
        return SimpleNamespace(errors={})


def chosen(
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    steps: int = 1000,
    batch_sizes: Sequence[int] = (32,) * COUNT,
) -> Choice:
    members = [Member(name=f"m{i}", steps=steps, batch_size=size) for i, size in enumerate(batch_sizes)]
    roster = Fleet(members, task(MLP), model=lambda: MLP().double())._roster
    monkeypatch.setattr(auto, "_TRIED", TRIED)
    monkeypatch.setattr(auto, "make", clock.make)
    monkeypatch.setattr(auto, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    place = Place(torch.device("cpu"), 1)
    return auto.choose(list(roster.trainees.values()), lambda t: roster.state(t.member.name), place)


@pytest.mark.parametrize(("rest", "size"), [(1.0, 4), (2.5, 4), (5.0, COUNT)])
def test_a_split_whose_parts_are_timed_whole_counts_in_full(rest, size, monkeypatch):
    """Groups of 4, 4 and 2: by its first group alone the split takes 7.5 s, whatever its last one takes."""
    clock = Clock(
        {("sequential", COUNT): 100.0, ("stacked", COUNT): 9.0, ("stacked", 4): 3.0, ("stacked", 2): rest}
    )
    found = chosen(clock, monkeypatch)
    split = 3.0 + 3.0 + rest
    assert found.seconds == {"sequential × 10": 100.0, "stacked × 10": 9.0, "stacked × 4": split}
    assert (found.kind, found.size) == ("stacked", size)
    names = [f"m{i}" for i in range(COUNT)]
    whole = [("stacked", names), ("stacked", names[:4]), ("stacked", names[4:8]), ("stacked", names[8:])]
    assert clock.made == [("sequential", names), ("stacked", names), ("stacked", names[:4]), *whole]


def test_ways_that_are_far_behind_are_not_timed_whole(monkeypatch):
    clock = Clock({("sequential", COUNT): 2.0, ("stacked", COUNT): 9.0, ("stacked", 4): 3.0})
    found = chosen(clock, monkeypatch)
    assert found.seconds == {"sequential × 10": 2.0, "stacked × 10": 9.0, "stacked × 4": 7.5}
    assert found.kind == "sequential"
    assert len(clock.made) == 3


@pytest.mark.parametrize(("steps", "whole"), [(100, 0), (400, 3)])
def test_ways_are_timed_whole_only_if_that_is_a_small_part_of_the_training(steps, whole, monkeypatch):
    """Two rounds past four steps of a stack and of its parts are 11 s and more: 5 % of 250 s, not of 100."""
    clock = Clock(
        {("sequential", COUNT): 9.0, ("stacked", COUNT): 1.0, ("stacked", 4): 0.5, ("stacked", 2): 0.2}
    )
    chosen(clock, monkeypatch, steps)
    assert len(clock.made) == 3 + (1 + whole if whole else 0)


@pytest.mark.parametrize(("steps", "kinds"), [(250, {"stacked"}), (400, {"stacked", "sequential"})])
def test_the_slowest_at_first_sight_is_left_out_if_timing_all_takes_too_long(steps, kinds, monkeypatch):
    """Two rounds past first steps: 4.5 s of the loop, 5 of a stack, 6.3 of its parts; allowed: 12.5, 20."""
    clock = Clock(
        {("sequential", COUNT): 1.5, ("stacked", COUNT): 1.0, ("stacked", 4): 0.5, ("stacked", 2): 0.2}
    )
    chosen(clock, monkeypatch, steps)
    assert {kind for kind, _ in clock.made[3:]} == kinds


@pytest.mark.parametrize(("steps", "looked"), [(30, False), (40, True)])
def test_a_short_training_stays_in_the_loop(steps, looked, monkeypatch):
    """A look at stacks of 10 and 4 takes five steps of 14 members: a fifth of a training of 35 steps."""
    clock = Clock({("sequential", COUNT): 100.0, ("stacked", COUNT): 9.0, ("stacked", 4): 9.0})
    found = chosen(clock, monkeypatch, steps)
    assert bool(clock.made) is looked
    assert found.kind == ("stacked" if looked else "sequential")
    assert looked or found.seconds == {"sequential × 10": 100.0}


def test_where_batches_are_of_unequal_sizes_the_first_group_does_not_stand_for_others(monkeypatch):
    """Which would be the fastest."""
    clock = Clock({("sequential", COUNT): 9.0, ("stacked", COUNT): 30.0, ("stacked", 4): 2.0})
    found = chosen(clock, monkeypatch, 1000, [2] * 8 + [64, 1024])
    assert found.kind == "sequential"
    assert found.seconds == {"sequential × 10": 9.0, "stacked × 10": 30.0}


def test_a_part_of_the_loop_stands_for_all_of_it(monkeypatch):
    """Evenly by the sizes of batches: of 64 members, of which 4 are large, one of 16."""
    sizes = [1024 if i % 16 == 0 else 2 for i in range(64)]
    trainees = [
        SimpleNamespace(member=Member(name=f"m{i}", steps=1, batch_size=s)) for i, s in enumerate(sizes)
    ]
    for trainee in trainees:
        trainee.examples = range(5000)
    found = [trainee.member.batch_size for trainee in auto._spread(trainees, 16)]
    assert found == [2] * 15 + [1024]


def test_the_loop_is_left_only_for_what_is_clearly_faster(monkeypatch):
    for faster, kind in ((0.995, "sequential"), (0.98, "stacked")):
        seconds = {("sequential", COUNT): 1.0, ("stacked", COUNT): faster, ("stacked", 4): 3.0}
        with monkeypatch.context() as patched:
            assert chosen(Clock(seconds), patched).kind == kind


def test_each_call_of_the_loop_is_a_step_also_if_nobody_counts_them():
    """As `auto` and benchmarks time it."""
    fleet = Fleet([Member(name="m", steps=9)], task(MLP), model=lambda: MLP().double())
    (trainee,) = fleet._roster.trainees.values()
    loop = make("sequential", [trainee], [fleet.state("m")], Place(torch.device("cpu"), 1))
    weights = [loop.step() and loop.state(0).parameters["first.weight"] for _ in range(3)]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])

"""Members that wait, and that end before they could start."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import MLP, labelled, task
from torch import nn

from plait.errors import InputError
from plait.fleet import After, Callback, Fleet, FleetWarning, Member, OptunaPruning
from plait.tasks import Task

BACKENDS = pytest.mark.parametrize("backend", ["sequential", "stacked"])


def double() -> nn.Module:
    return MLP().double()


def waiting(**kwargs: Any) -> Fleet:
    """`b` and `d` wait for `a`, `c` for `b`."""
    own = [
        Member(name="a", steps=3),
        Member(name="b", steps=2, start=After("a")),
        Member(name="c", steps=2, start=After("b")),
        Member(name="d", steps=2, start=After("a")),
    ]
    return Fleet(own, task(MLP), model=double, **kwargs)


class Drop:
    """Drops a member after a round."""

    def __init__(self, name: str, at: int) -> None:
        self.name, self.at = name, at

    def on_round(self, fleet: Fleet, validated: object) -> None:
        if fleet.round == self.at:
            fleet.drop(self.name, "no longer wanted")


@BACKENDS
def test_a_member_that_is_dropped_while_it_waits_never_starts(backend: Any) -> None:
    fleet = waiting(backend=backend)
    with pytest.warns(FleetWarning, match="member `c` failed: it starts after `b`, which never started"):
        fleet.fit(callbacks=[Drop("b", 1)])
    assert fleet.status == {"a": "finished", "d": "finished", "b": "dropped", "c": "failed"}
    for use in (fleet.state, fleet.__getitem__, lambda name: fleet.predict([[0.0] * 12], member=name)):
        with pytest.raises(InputError, match="`b` never started: it is dropped\n  hint: no longer wanted"):
            use("b")
    fleet.drop("b")
    with pytest.raises(InputError, match="member `e`: it starts after `b`, which never started"):
        fleet.add(Member(name="e", steps=1, start=After("b")))
    assert "e" not in fleet


def test_a_member_that_waits_says_so() -> None:
    fleet = waiting()
    for use in (fleet.state, fleet.__getitem__, lambda name: fleet.predict([[0.0] * 12], member=name)):
        with pytest.raises(InputError, match="member `b` has not started\n  hint: it waits for `a`"):
            use("b")


def test_who_never_started_has_not_after_a_resume(tmp_path: Path) -> None:
    fleet = waiting(out=tmp_path / "whole", save_every=1)

    class Stop(Exception):
        pass

    class Dying:
        def on_save(self, fleet: Fleet, folder: Path) -> None:
            raise Stop

    with pytest.warns(FleetWarning), pytest.raises(Stop):
        fleet.fit(callbacks=[Drop("b", 1), Dying()])
    shutil.copytree(tmp_path / "whole", tmp_path / "partly")
    again = waiting(out=tmp_path / "whole").fit(resume=True)
    assert again.status == {"a": "finished", "d": "finished", "b": "dropped", "c": "failed"}
    assert again.state("d").step == 2
    with pytest.raises(InputError, match="hint: no longer wanted"):
        again.state("b")
    without = [
        Member(name="a", steps=3),
        *(Member(name=name, steps=2, start=After("a")) for name in "bd"),
    ]
    partly = Fleet(without, task(MLP), model=double, out=tmp_path / "partly")
    assert partly.fit(resume=True).status == again.status
    lone = Fleet([Member(name="b", steps=2)], task(MLP), model=double, out=tmp_path / "whole")
    with pytest.raises(InputError, match="the save has members `a`, `d`, this fleet has none"):
        lone.fit(resume=True)


@pytest.mark.parametrize("given", [[], ["other"], ["other", "after"], ["other", "after", "later"]])
def test_a_fleet_whose_joiner_failed_can_be_resumed(given: list[str], tmp_path: Path) -> None:
    joiners = {
        "other": Member(name="other", steps=2, optimizer="sgd"),
        "after": Member(name="after", steps=2, start=After("other")),
        "later": Member(name="later", steps=2, start=After("after")),
    }

    def made(*more: Member) -> Fleet:
        own = [Member(name="a", steps=6), *more]
        return Fleet(own, task(MLP), model=double, out=tmp_path, save_every=1, backend="stacked")

    class Stop(Exception):
        pass

    class Joining:
        def on_round(self, fleet: Fleet, validated: object) -> None:
            if fleet.round == 2:
                fleet.add(joiners["other"])
                fleet.add(joiners["after"])

        def on_save(self, fleet: Fleet, folder: Path) -> None:
            if fleet.round == 4:
                raise Stop

    with pytest.warns(FleetWarning), pytest.raises(Stop):
        made().fit(callbacks=[Joining()])
    again = made(*(joiners[name] for name in given))
    with pytest.warns(FleetWarning) if "later" in given else nullcontext():
        again.fit(resume=True)
    never = dict.fromkeys(["other", "after", *given], "failed")
    assert again.status == {"a": "finished"} | never
    assert again.state("a").step == 6
    with pytest.raises(InputError, match="it could not be started: members `a` and `other` can't share"):
        again.state("other")


def test_a_trial_whose_member_never_started_has_failed() -> None:
    optuna = pytest.importorskip("optuna")
    study = optuna.create_study(direction="maximize")
    trials = {name: study.ask() for name in "abcd"}
    with pytest.warns(FleetWarning):
        waiting().fit(callbacks=[OptunaPruning(study, trials), Drop("b", 1)])
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "FAIL", "COMPLETE"]


class At:
    """Does something after a round."""

    def __init__(self, number: int, act: Callable[[Fleet], None]) -> None:
        self.number, self.act = number, act

    def on_round(self, fleet: Fleet, validated: object) -> None:
        if fleet.round == self.number:
            self.act(fleet)


def narrow() -> Task:
    """Fewer inputs than the network takes."""
    x = torch.randn(9, 5, dtype=torch.float64)
    return Task("narrow", {"train": (x, torch.zeros(9, dtype=torch.int64))})


def test_a_member_that_will_not_be_built_is_refused_before_anything_trains() -> None:
    own = [
        Member(name="c", steps=2, start=After("b"), task=narrow()),
        Member(name="b", steps=2, start=After("a")),
        Member(name="a", steps=3),
    ]
    with pytest.raises(InputError, match="member `c`: data, network and loss of task `narrow` don't fit"):
        Fleet(own, task(MLP), model=double)
    fleet = Fleet(own[1:], task(MLP), model=double)
    with pytest.raises(InputError, match="member `c`: data, network"):
        fleet.add(own[0])
    assert fleet.fit().status == {"a": "finished", "b": "finished"}


@BACKENDS
def test_a_member_that_joins_and_can_not_be_built_fails_alone(backend: Any) -> None:
    def join(fleet: Fleet) -> None:
        fleet.add(Member(name="wrong", steps=2, task=narrow()))
        fleet.add(Member(name="late", steps=2, start=After("a"), task=narrow()))
        fleet.add(Member(name="after", steps=2, start=After("wrong")))
        fleet.add(Member(name="good", steps=2))

    fleet = Fleet([Member(name="a", steps=5)], task(MLP), model=double, backend=backend)
    with pytest.warns(FleetWarning) as told:
        fleet.fit(callbacks=[At(2, join)])
    said = [str(each.message) for each in told]
    assert [text.partition(": it could not be started: ")[0] for text in said] == [
        f"member `{name}` failed" for name in ("wrong", "late", "after")
    ]
    assert "data, network and loss of task `narrow` don't fit" in said[0]
    ends = {"a": "finished", "good": "finished", "wrong": "failed", "late": "failed", "after": "failed"}
    assert fleet.status == ends
    with pytest.raises(InputError, match="never started: it is failed\n  hint: it could not be started"):
        fleet.state("wrong")
    lone = Fleet([Member(name="a", steps=5)], task(MLP), model=double, backend="sequential").fit()
    for name, tensor in lone.state("a").parameters.items():
        torch.testing.assert_close(fleet.state("a").parameters[name], tensor, rtol=1e-10, atol=1e-12)


class Fragile(MLP):
    """Can't be copied any more once it is told."""

    broken = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Fragile:
        if Fragile.broken:
            raise MemoryError("no room")
        other = Fragile().double()
        other.load_state_dict(self.state_dict())
        return other


def test_a_member_that_waits_and_can_then_not_be_built_fails_alone(monkeypatch: Any, tmp_path: Path) -> None:
    own = [
        Member(name="a", steps=3),
        Member(name="b", steps=2, start=After("a")),
        Member(name="c", steps=2, start=After("b")),
        Member(name="d", steps=6),
    ]
    monkeypatch.setattr(Fragile, "broken", False)
    learned = Task("t", {"train": labelled(MLP, 30)})

    def made() -> Fleet:
        return Fleet(own, learned, model=lambda: Fragile().double(), backend="sequential", out=tmp_path)

    fleet = made()
    with pytest.warns(FleetWarning) as told:
        fleet.fit(callbacks=[At(2, lambda f: monkeypatch.setattr(Fragile, "broken", True))])
    said = [str(each.message) for each in told]
    assert "member `b` failed: it could not be started: MemoryError: no room" in said
    assert fleet.status == {"a": "finished", "d": "finished", "b": "failed", "c": "failed"}
    monkeypatch.setattr(Fragile, "broken", False)
    again = made().fit(resume=True)
    assert again.status == fleet.status
    assert again.state("d").step == 6


def test_a_member_that_the_stack_can_not_take_fails_alone() -> None:
    own = [
        Member(name="a", steps=2),
        Member(name="b", steps=6),
        Member(name="other", steps=2, start=After("a"), optimizer="sgd"),
        Member(name="like", steps=2, start=After("a")),
        Member(name="last", steps=2, start=After("b"), optimizer="sgd"),
    ]
    fleet = Fleet(own, task(MLP), model=double, backend="stacked")
    with pytest.warns(FleetWarning, match="`other` failed: .* members `b` and `other` can't share a stack"):
        fleet.fit()
    assert fleet.status == dict.fromkeys(["a", "b", "like", "last"], "finished") | {"other": "failed"}


def test_what_is_no_member() -> None:
    wrong: Any = [{"name": "a"}]
    with pytest.raises(InputError, match="a dict is no member"):
        Fleet(wrong, task(MLP), model=double)
    one: Any = Member(name="a", steps=1)
    assert Fleet(one, task(MLP), model=double).members == ["a"]


class DropsFrom(Callback):
    """Drops a member from one of its hooks, and keeps who finished."""

    def __init__(self, hook: str, name: str, after: str = "") -> None:
        self.hook, self.name, self.after = hook, name, after
        self.finished: list[str] = []

    def on_start(self, fleet: Fleet) -> None:
        self._drop("on_start", fleet)

    def on_save(self, fleet: Fleet, folder: Path) -> None:
        self._drop("on_save", fleet)

    def on_finish(self, fleet: Fleet, member: str) -> None:
        self.finished.append(member)
        if member == self.after:
            self._drop("on_finish", fleet)

    def _drop(self, hook: str, fleet: Fleet) -> None:
        if hook == self.hook:
            fleet.drop(self.name)


@BACKENDS
@pytest.mark.parametrize("hook", ["on_start", "on_save", "on_finish"])
def test_who_waits_for_a_member_that_a_hook_drops_starts(backend: Any, hook: str, tmp_path: Path) -> None:
    own = [
        Member(name="a", steps=10, evaluate_every=1, keep="best"),
        Member(name="b", steps=3),
        Member(name="c", steps=4, start=After("a")),
    ]
    fleet = Fleet(own, task(MLP), model=double, backend=backend, out=tmp_path, save_every=2)
    drops = DropsFrom(hook, "a", "b")
    fleet.fit(callbacks=[drops])
    assert fleet.status == {"a": "dropped", "b": "finished", "c": "finished"}
    assert sorted(drops.finished) == ["a", "b", "c"]
    assert fleet.state("c").step == 4
    assert not fleet._roster.kept


def test_a_hook_may_drop_every_member_one_after_another() -> None:
    class Next(Callback):
        finished = ""

        def on_finish(self, fleet: Fleet, member: str) -> None:
            self.finished += member
            left = [name for name, status in fleet.status.items() if status == "running"]
            if left:
                fleet.drop(left[-1])

    own = [Member(name=name, steps=9) for name in "abc"] + [Member(name="d", steps=1)]
    hook = Next()
    fleet = Fleet(own, task(MLP), model=double, backend="sequential").fit(callbacks=[hook])
    assert fleet.status == dict.fromkeys("abc", "dropped") | {"d": "finished"}
    assert hook.finished == "dcba"

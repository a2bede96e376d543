"""Members that wait, and that end before they could start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from networks import MLP, task
from torch import nn

from plait.errors import InputError
from plait.fleet import After, Fleet, FleetWarning, Member, OptunaPruning

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
    fleet = waiting(out=tmp_path, save_every=1)

    class Stop(Exception):
        pass

    class Dying:
        def on_save(self, fleet: Fleet, folder: Path) -> None:
            raise Stop

    with pytest.warns(FleetWarning), pytest.raises(Stop):
        fleet.fit(callbacks=[Drop("b", 1), Dying()])
    again = waiting(out=tmp_path).fit(resume=True)
    assert again.status == {"a": "finished", "d": "finished", "b": "dropped", "c": "failed"}
    assert again.state("d").step == 2
    with pytest.raises(InputError, match="hint: no longer wanted"):
        again.state("b")
    without = [
        Member(name="a", steps=3),
        *(Member(name=name, steps=2, start=After("a")) for name in "bd"),
    ]
    with pytest.raises(InputError, match="the save has a member `c`, this fleet has none"):
        Fleet(without, task(MLP), model=double, out=tmp_path).fit(resume=True)
    own = [
        Member(name="a", steps=3),
        *(Member(name=name, steps=2) for name in "bc"),
        Member(name="d", steps=2, start=After("a")),
    ]
    with pytest.raises(InputError, match="member `b` was saved with other settings"):
        Fleet(own, task(MLP), model=double, out=tmp_path).fit(resume=True)


def test_a_trial_whose_member_never_started_has_failed() -> None:
    optuna = pytest.importorskip("optuna")
    study = optuna.create_study(direction="maximize")
    trials = {name: study.ask() for name in "abcd"}
    with pytest.warns(FleetWarning):
        waiting().fit(callbacks=[OptunaPruning(study, trials), Drop("b", 1)])
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "FAIL", "COMPLETE"]


def test_what_is_no_member() -> None:
    wrong: Any = [{"name": "a"}]
    with pytest.raises(InputError, match="a dict is no member"):
        Fleet(wrong, task(MLP), model=double)
    one: Any = Member(name="a", steps=1)
    assert Fleet(one, task(MLP), model=double).members == ["a"]

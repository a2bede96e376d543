"""`fit(resume=True)` of an object that has trained goes on from where it is, to the same bits and records."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import MLP, task
from test_going_on import BACKENDS, alarms, assert_same

from plait.errors import InputError
from plait.fleet import After, Callback, Fleet, Member, SuccessiveHalving, _store
from plait.fleet._log import JsonLines

LATE = Member(name="late", start=After("a"), steps=5, lr=0.1, batch_size=8)
NEW = Member(name="new", steps=5, lr=0.2, seed=4, batch_size=8, evaluate_every=2)


def fleet_of(out: Path | None, backend: Any = "sequential", *more: Member, save_every: int = 4) -> Fleet:
    own = [
        Member(name=name, steps=steps, lr=0.3, seed=seed, batch_size=8, evaluate_every=3, keep="best")
        for seed, (name, steps) in enumerate({"a": 6, "b": 14, "c": 14}.items())
    ]
    return Fleet(
        [*own, LATE, *more],
        task(MLP, seed=1),
        model=lambda: MLP().double(),
        backend=backend,
        log_every=1,
        out=out,
        save_every=save_every,
    )


class Cut(Callback):
    """Ctrl-C in a round."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_round(self, fleet: Fleet, validated: object) -> None:
        if fleet.round == self.at:
            raise KeyboardInterrupt


class Add(Callback):
    """A member joins."""

    def on_round(self, fleet: Fleet, validated: object) -> None:
        if fleet.round == 5 and "new" not in fleet:
            fleet.add(NEW)


def cut_off(fleet: Fleet, at: int, *callbacks: Any, resume: bool = False) -> Fleet:
    with pytest.raises(KeyboardInterrupt):
        fleet.fit(callbacks=[*callbacks, Cut(at)], resume=resume)
    return fleet


def assert_logged(fleet: Fleet) -> None:
    assert fleet.out is not None
    lines = (fleet.out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == fleet.history


@BACKENDS
@pytest.mark.parametrize("at", [3, 6, 7, 10])  # before the first save, as `late` starts, and later
def test_members_that_started_since_the_save_go_on(backend: Any, at: int, tmp_path: Path) -> None:
    fleet = cut_off(fleet_of(tmp_path, backend), at).fit(resume=True)
    assert_same(fleet, fleet_of(None, backend).fit())
    assert_logged(fleet)


@BACKENDS
@pytest.mark.parametrize("at", [5, 6, 9])
def test_members_that_a_callback_added_go_on(backend: Any, at: int, tmp_path: Path) -> None:
    fleet = cut_off(fleet_of(tmp_path, backend), at, Add()).fit(callbacks=[Add()], resume=True)
    assert_same(fleet, fleet_of(None, backend).fit(callbacks=[Add()]))
    assert fleet.state("new").step == 5
    assert_logged(fleet)


def test_what_was_taken_up_is_the_objects_own(tmp_path: Path) -> None:
    cut_off(fleet_of(tmp_path), 5)
    for resume in (True, False):
        folder = tmp_path.with_name(f"{tmp_path.name}{resume}")
        shutil.copytree(tmp_path, folder)
        other = cut_off(fleet_of(folder), 7, resume=True)  # it has saved nothing itself
        assert other.round == 7
        assert other.saved_round == 4
        other.fit(resume=resume)
        assert_same(other, fleet_of(None).fit())
        assert_logged(other)


def test_any_signal_and_any_object_that_goes_on_end_the_same(tmp_path: Path) -> None:
    whole, cuts = fleet_of(None).fit(), 0
    generator = torch.Generator().manual_seed(0)
    with alarms():
        for number in range(3):
            fleet = fleet_of(tmp_path / f"{number}")
            while not fleet.round or set(fleet.status.values()) != {"finished"}:
                draw, anew = torch.rand(2, generator=generator).tolist()
                with suppress(KeyboardInterrupt):
                    signal.setitimer(signal.ITIMER_REAL, 0.004 + 0.06 * draw)
                    try:
                        fleet.fit(resume=True)
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
                cuts += 1
                fleet = fleet_of(fleet.out) if anew < 0.2 else fleet
            fleet.fit(resume=True)
            assert_same(fleet, whole)
            assert_logged(fleet)
    assert cuts > 3


def test_ctrl_c_as_a_record_is_written_writes_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = JsonLines.write, 0

    def pressed(self: JsonLines, record: Mapping[str, Any]) -> None:
        nonlocal written
        real(self, record)
        written += 1
        if written == 5:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(100):  # a handler that waits for nothing would be called here
                time.sleep(0)

    monkeypatch.setattr(JsonLines, "write", pressed)
    fleet = fleet_of(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fleet.fit()
    assert_logged(fleet.fit(resume=True))


# ---- callbacks


class Counts(Callback):
    """Counts rounds, under keys that JSON makes strings."""

    def __init__(self) -> None:
        self.rounds = {0: 0}

    def on_round(self, fleet: Fleet, validated: object) -> None:
        self.rounds[0] += 1

    def facts(self) -> dict[str, Any]:
        return {"rounds": self.rounds}

    def restore(self, facts: Mapping[str, Any]) -> None:
        self.rounds = {int(key): value for key, value in facts["rounds"].items()}


def halving() -> SuccessiveHalving:
    return SuccessiveHalving(rungs=[3, 9], eta=1.5)


def test_callbacks_that_were_made_anew_know_what_those_before_did(tmp_path: Path) -> None:
    whole = fleet_of(None).fit(callbacks=[halving()])
    assert "dropped" in whole.status.values()
    old, new = Counts(), Counts()
    fleet = cut_off(fleet_of(tmp_path), 7, old, halving())
    fleet.fit(callbacks=[new, halving()], resume=True)
    assert_same(fleet, whole)
    assert old.rounds == {0: 7}  # nothing is shared
    assert new.rounds == {0: fleet.round}  # the round in which it was cut off is counted once
    same = Counts()
    fleet = cut_off(fleet_of(tmp_path / "same"), 7, same).fit(callbacks=[same], resume=True)
    assert same.rounds == {0: fleet.round}


def test_other_callbacks_are_refused_as_those_of_a_save_are(tmp_path: Path) -> None:
    fleet = cut_off(fleet_of(tmp_path), 7, Counts())
    told = "it was trained with the callbacks `Counts`, and goes on with `SuccessiveHalving`"
    with pytest.raises(InputError, match=told):
        fleet.fit(callbacks=[halving()], resume=True)
    fleet.fit(callbacks=[Counts()], resume=True)
    assert fleet.fit(resume=True).status["late"] == "finished"  # nothing is left to train


def test_a_rule_that_goes_on_from_a_save_forgets_what_it_has_seen_since(tmp_path: Path) -> None:
    rule, whole = halving(), fleet_of(None).fit(callbacks=[halving()])
    cut_off(fleet_of(tmp_path, save_every=2), 4, rule)  # saved before anything was validated
    assert_same(fleet_of(tmp_path).fit(callbacks=[rule], resume=True), whole)


# ---- whose save it is


def removing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Ctrl-C comes while a save of this name is removed."""
    real: Callable[..., None] = shutil.rmtree

    def pressed(path: Any, *args: Any, **kwargs: Any) -> None:
        if Path(path).name == name:
            raise KeyboardInterrupt
        real(path, *args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", pressed)


@pytest.mark.parametrize("resume", [False, True])
def test_saves_cut_off_in_a_row_are_still_the_objects_own(
    resume: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = fleet_of(tmp_path, save_every=2)
    removing(monkeypatch, "000000002")
    with pytest.raises(KeyboardInterrupt):
        fleet.fit()
    monkeypatch.undo()
    assert fleet.round == 4
    for at in (6, 8):

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(_store, "save_file", full)
        with pytest.raises(InputError, match="the save of round 4 stays"):
            fleet.fit(resume=resume)
        monkeypatch.undo()
        assert fleet.round == at
    assert_same(fleet.fit(resume=resume), fleet_of(None).fit())
    assert_logged(fleet)
    assert [place.name for place in (tmp_path / "saves").iterdir()] == ["000000014"]


def test_a_save_of_the_same_round_may_be_another_fleets(tmp_path: Path) -> None:
    fleet = cut_off(fleet_of(tmp_path), 5)
    shutil.rmtree(tmp_path)
    Fleet([Member(name="x", steps=4)], task(MLP), model=lambda: MLP().double(), out=tmp_path).fit()
    with pytest.raises(InputError, match="a fleet was saved here"):
        fleet.fit()
    with pytest.raises(InputError, match="the save has a member `x`, this fleet has none"):
        fleet.fit(resume=True)


def test_what_another_object_has_trained_since_is_taken_up_or_refused(tmp_path: Path) -> None:
    fleet, behind = cut_off(fleet_of(tmp_path), 10), fleet_of(tmp_path, save_every=1)
    cut_off(behind, 10, resume=True)  # from round 8 on: `late` is there
    with pytest.raises(InputError, match="a fleet was saved here"):
        fleet.fit()
    cut_off(fleet, 12, resume=True)
    assert fleet.round == 12
    assert_same(fleet.fit(resume=True), fleet_of(None).fit())

    out = tmp_path / "other"
    fleet, behind = cut_off(fleet_of(out), 7), fleet_of(out, save_every=1)
    before = {name: fleet.state(name).parameters for name in fleet}
    cut_off(behind, 6, resume=True)  # from round 4 on, to 5: `late` has not started there
    with pytest.raises(InputError, match=r"its save has no member `late`\n.*make the fleet anew"):
        fleet.fit(resume=True)
    assert fleet.round == 7
    assert all(torch.equal(p, fleet.state(n).parameters[k]) for n in fleet for k, p in before[n].items())
    assert_same(fleet_of(out).fit(resume=True), fleet_of(None).fit())


def test_a_save_that_is_refused_starts_nobody(tmp_path: Path) -> None:
    cut_off(fleet_of(tmp_path), 9)
    (tmp_path / "saves" / "000000008" / "c.safetensors").unlink()
    fleet = fleet_of(tmp_path)
    with pytest.raises(InputError, match="it can't be read"):
        fleet.fit(resume=True)
    assert fleet.status["late"] == "waiting"


def test_ctrl_c_while_a_save_is_read_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off(fleet_of(tmp_path), 9)
    real = torch.UntypedStorage.__getitem__

    def pressed(self: Any, *args: Any) -> Any:
        if not isinstance(args[0], slice):  # where PyTorch takes what is raised for a wrong kind of data
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(100):  # a handler that waits for nothing would be called here
                time.sleep(0)
        return real(self, *args)

    fleet = fleet_of(tmp_path)
    monkeypatch.setattr(torch.UntypedStorage, "__getitem__", pressed)
    with pytest.raises(KeyboardInterrupt):
        fleet.fit(resume=True)
    monkeypatch.undo()
    assert fleet.round == 0
    assert_same(fleet.fit(resume=True), fleet_of(None).fit())


# ---- members that callbacks added, in another object


def test_members_that_a_callback_added_are_listed_when_another_object_goes_on(tmp_path: Path) -> None:
    cut_off(fleet_of(tmp_path), 9, Add())
    told = r"the save has a member `new`, this fleet has none\n.*those that callbacks added too"
    with pytest.raises(InputError, match=told):
        fleet_of(tmp_path).fit(callbacks=[Add()], resume=True)
    resumed = fleet_of(tmp_path, "sequential", NEW).fit(callbacks=[Add()], resume=True)
    assert_same(resumed, fleet_of(None).fit(callbacks=[Add()]))
    assert_logged(resumed)

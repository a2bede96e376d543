"""A fit that was cut off, by a callback or a signal, is gone on from exactly by the next one."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import MLP, task
from torch import nn

from plait.fleet import Callback, Fleet, Member, SuccessiveHalving
from plait.fleet._sequential import Sequential
from plait.fleet._signals import cuts, hold, through_plait, undisturbed, until_counted
from plait.fleet._trainee import Trainee
from plait.tasks import Batch, Task

BACKENDS = pytest.mark.parametrize("backend", ["sequential", "stacked"])


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 3)).double()


def fleet_of(backend: Any, **kwargs: Any) -> Fleet:
    own = [
        Member(
            name=f"m{i}",
            steps=9,
            lr=0.3,
            seed=i,
            batch_size=8,
            drop_last=True,
            evaluate_every=3,
            keep="best",
            patience=1,
        )
        for i in range(3)
    ]
    return Fleet(own, task(MLP, seed=1), model=network, backend=backend, log_every=1, **kwargs)


def assert_same(one: Fleet, other: Fleet) -> None:
    assert one.status == other.status
    assert one.history == other.history
    assert one.round == other.round
    for name in one:
        first, second = one.state(name), other.state(name)
        parts = zip(
            [first.parameters, first.buffers, *first.moments],
            [second.parameters, second.buffers, *second.moments],
            strict=True,
        )
        assert first.step == second.step
        assert all(torch.equal(part[key], held[key]) for part, held in parts for key in part)


class Stop(Exception):
    pass


class Calls(Callback):
    """Notes what it is told; raises at a call of one hook."""

    def __init__(self, hook: str = "", at: int = 0) -> None:
        self.hook, self.at, self.told = hook, at, list[tuple[Any, ...]]()

    def _note(self, hook: str, *of: Any) -> None:
        self.told.append((hook, *of))
        if hook == self.hook and sum(told[0] == hook for told in self.told) == self.at:
            raise Stop

    def on_step(self, fleet: Fleet, record: Any) -> None:
        self._note("on_step", record["member"], record["step"])

    def on_evaluate(self, fleet: Fleet, record: Any) -> None:
        self._note("on_evaluate", record["member"], record["step"])

    def on_round(self, fleet: Fleet, validated: Any) -> None:
        self._note("on_round", fleet.round, *(record["member"] for record in validated))

    def on_finish(self, fleet: Fleet, member: str) -> None:
        self._note("on_finish", member)


@BACKENDS
def test_whatever_call_of_a_callback_raises_nothing_is_lost_or_done_twice(backend: Any) -> None:
    told = Calls()
    whole = fleet_of(backend).fit(callbacks=[told, halving()])
    assert set(whole.status.values()) == {"dropped", "stopped", "finished"}
    for hook in ("on_step", "on_evaluate", "on_round", "on_finish"):
        calls = sum(call[0] == hook for call in told.told)
        for at in range(1, 1 + calls, 2 if backend == "sequential" else 12):  # a stack is slow to make
            cut, after, rule = Calls(hook, at), Calls(), halving()
            fleet = fleet_of(backend)
            with pytest.raises(Stop):
                fleet.fit(callbacks=[cut, after, rule])
            fleet.fit(callbacks=[cut, after, rule])
            assert_same(fleet, whole)
            assert cut.told == after.told == told.told


def halving() -> SuccessiveHalving:
    return SuccessiveHalving(rungs=[3], eta=1.5)


@BACKENDS
def test_a_hook_may_raise_whenever_it_is_called(backend: Any) -> None:
    class Always(Callback):
        def on_step(self, fleet: Fleet, record: Any) -> None:
            raise Stop

    fleet = fleet_of(backend)
    for _ in range(7):
        with pytest.raises(Stop):
            fleet.fit(callbacks=[Always()])
    assert_same(fleet.fit(), fleet_of(backend).fit())


@pytest.mark.parametrize("save_every", [0, 3])
def test_metrics_on_disk_are_the_history(save_every: int, tmp_path: Path) -> None:
    fleet = fleet_of("sequential", out=tmp_path, save_every=save_every)
    for hook, at in (("on_step", 2), ("on_round", 5)):
        with pytest.raises(Stop):
            fleet.fit(callbacks=[Calls(hook, at)])
    fleet.fit()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == fleet.history == fleet_of("sequential").fit().history


def test_a_fit_that_is_resumed_in_one_object_goes_back_to_its_save(tmp_path: Path) -> None:
    fleet = fleet_of("sequential", out=tmp_path, save_every=2)
    with pytest.raises(Stop):
        fleet.fit(callbacks=[Calls("on_step", 13)])
    fleet.fit(resume=True)
    assert_same(fleet, fleet_of("sequential").fit())


def test_a_member_that_is_dropped_after_a_cut_ends_with_its_best_weights() -> None:
    fleet = fleet_of("sequential")
    with pytest.raises(Stop):
        fleet.fit(callbacks=[Calls("on_round", 4)])
    kept = fleet._roster.kept["m0"]
    fleet.drop("m0")
    told = Calls()
    fleet.fit(callbacks=[told])
    assert ("on_finish", "m0") in told.told
    assert fleet.state("m0") is kept
    assert not fleet._roster.kept


# ---- signals


@contextmanager
def alarms(handler: Any = signal.default_int_handler) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, handler)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@BACKENDS
def test_a_signal_at_any_moment_cuts_no_step_in_two(backend: Any) -> None:
    whole, cut = fleet_of(backend).fit(), 0
    generator = torch.Generator().manual_seed(0)
    with alarms():
        for _ in range(4):
            fleet = fleet_of(backend)
            while "running" in fleet.status.values():
                seconds = 0.002 + 0.1 * torch.rand((), generator=generator).item()
                with suppress(KeyboardInterrupt):
                    signal.setitimer(signal.ITIMER_REAL, seconds)
                    fleet.fit()
                signal.setitimer(signal.ITIMER_REAL, 0)
                cut += "running" in fleet.status.values()
            assert_same(fleet, whole)
    assert cut


@BACKENDS
def test_ctrl_c_while_weights_change_waits_until_the_step_is_counted(
    backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plait.fleet._update import Optimizer

    changing: Any = torch.optim.AdamW if backend == "sequential" else Optimizer
    step, number = changing.step, 0

    def pressed(self: Any, *args: Any) -> Any:
        nonlocal number
        number += 1
        if number == 4:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(100):  # a handler that waits for nothing would have been called here
                time.sleep(0)
        return step(self, *args)

    whole = fleet_of(backend).fit()
    fleet = fleet_of(backend)
    monkeypatch.setattr(changing, "step", pressed)
    with pytest.raises(KeyboardInterrupt):
        fleet.fit()
    steps = [trainee.step for trainee in fleet._roster.trainees.values()]
    assert number == 4
    assert sum(steps) == (3 if backend == "sequential" else 12)
    assert_same(fleet.fit(), whole)


def test_handlers_are_the_users_again_after_a_fit() -> None:
    def own(*_: object) -> None: ...

    seen = []

    class Look(Callback):
        def on_start(self, fleet: Fleet) -> None:
            seen.append(signal.getsignal(signal.SIGINT))
            signal.signal(signal.SIGUSR2, own)

    before = signal.getsignal(signal.SIGUSR2)
    with alarms(own):
        fleet_of("sequential").fit(callbacks=[Look()])
        assert signal.getsignal(signal.SIGALRM) is own
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert seen[0] is not signal.default_int_handler
    assert signal.getsignal(signal.SIGUSR2) is own  # set meanwhile, and left alone
    signal.signal(signal.SIGUSR2, before)


def test_a_fleet_trains_in_another_thread_and_leaves_signals_alone() -> None:
    found: list[Any] = []

    class Look(Callback):
        def on_start(self, fleet: Fleet) -> None:
            found.append(signal.getsignal(signal.SIGINT))

    def train() -> None:
        found.append(fleet_of("sequential").fit(callbacks=[Look()]))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert found[0] is signal.default_int_handler
    assert_same(found[1], fleet_of("sequential").fit())


def test_signals_wait_where_they_are_asked_to_and_nowhere_else() -> None:
    seen: list[str] = []

    def ring(*_: object) -> None:
        seen.append("rung")
        raise Stop

    def twice() -> None:
        with undisturbed():
            with undisturbed():
                signal.raise_signal(signal.SIGALRM)
            signal.raise_signal(signal.SIGALRM)
            seen.append("inside")

    def counted() -> None:
        with until_counted():
            hold()
            signal.raise_signal(signal.SIGALRM)
            seen.append("counted")

    with alarms(ring), through_plait():
        before = cuts()
        with pytest.raises(Stop):
            signal.raise_signal(signal.SIGALRM)
        with pytest.raises(Stop):
            twice()
        assert seen == ["rung", "inside", "rung", "rung"]  # both are called though the first raises
        hold()  # nobody counts: it asks for nothing
        with pytest.raises(Stop):
            signal.raise_signal(signal.SIGALRM)
        with pytest.raises(Stop):
            counted()
        assert seen[-2:] == ["counted", "rung"]
        assert cuts() - before == 5


def test_a_hook_that_a_signal_cut_is_called_again() -> None:
    class Cut(Calls):
        def on_evaluate(self, fleet: Fleet, record: Any) -> None:
            super().on_evaluate(fleet, record)
            if len(self.told) == at:
                signal.raise_signal(signal.SIGINT)

    whole = Calls()
    fleet_of("sequential").fit(callbacks=[whole])
    at = 1 + next(number for number, call in enumerate(whole.told) if call[0] == "on_evaluate")
    cut, fleet = Cut(), fleet_of("sequential")
    with pytest.raises(KeyboardInterrupt):
        fleet.fit(callbacks=[cut])
    fleet.fit(callbacks=[cut])
    assert cut.told[at - 1] == cut.told[at]
    assert cut.told[:at] + cut.told[at + 1 :] == whole.told


# ---- the loop's steps


class Moves(nn.Module):
    """A buffer that begins to move late."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x: Any) -> Any:
        if self.training:
            self.calls += 1
            self.mean.add_((x.detach().mean(0) - self.mean) * (self.calls > 2))
        return self.last(x)


class Late:
    """Examples that are no numbers, or cut the fit off, once that is said."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x, self.bad = torch.randn(48, 6, generator=generator), False
        self.error: Exception | None = None

    def __len__(self) -> int:
        return 48

    def batch(self, rows: Any) -> Batch:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return {"input": self.x[rows] * (torch.nan if self.bad else 1), "label": torch.as_tensor(rows) % 3}


def test_a_buffer_that_moves_late_is_put_back_too() -> None:
    examples = Late()
    trainee = Trainee(Member(name="a", steps=9, batch_size=8), Task("t", {"train": examples}), Moves(), 9)
    loop = Sequential([trainee], [trainee.initial()], torch.device("cpu"))
    for _ in range(4):
        assert loop.step().taken.all()
        trainee.step += 1
    before = loop.state(0)
    assert before.buffers["mean"].abs().sum() > 0
    examples.bad = True
    assert not loop.step().taken.any()
    assert all(torch.equal(before.buffers[n], held) for n, held in loop.state(0).buffers.items())
    examples.error = ValueError("gone")
    assert list(loop.step().errors) == ["a"]
    assert all(torch.equal(before.buffers[n], held) for n, held in loop.state(0).buffers.items())


class Cut(Late):
    """Ctrl-C comes while its first batch is read."""

    cuts = 1

    def batch(self, rows: Any) -> Any:
        if self.cuts:
            self.cuts -= 1
            raise KeyboardInterrupt
        return super().batch(rows)


def test_a_step_of_a_call_that_was_cut_off_is_not_taken_again() -> None:
    first, second = (
        Trainee(Member(name=name, steps=9, batch_size=8), Task("t", {"train": data}), Moves(), 9)
        for name, data in (("a", Late()), ("b", Cut()))
    )
    start = first.initial()
    loop = Sequential([first, second], [start, second.initial()], torch.device("cpu"))
    with pytest.raises(KeyboardInterrupt):
        loop.step()
    held = loop.state(0)
    assert any(not torch.equal(p, start.parameters[n]) for n, p in held.parameters.items())
    loop.step()
    assert all(torch.equal(held.parameters[n], p) for n, p in loop.state(0).parameters.items())
    first.step, second.step = 1, 1
    loop.step()
    assert any(not torch.equal(held.parameters[n], p) for n, p in loop.state(0).parameters.items())

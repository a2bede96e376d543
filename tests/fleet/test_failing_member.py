"""A member whose data, network or validation fails ends alone."""

from __future__ import annotations

import inspect
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
from plait.fleet import After, Callback, Fleet, FleetWarning, Member
from plait.fleet._trial import told
from plait.tasks import Batch, CrossEntropy, Task

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


@BACKENDS
def test_examples_of_a_member_that_has_ended_are_not_read(backend: Any) -> None:
    tasks = [one("a"), one("b", 1), one("c", 2)]
    own = [
        Member(name=each.name, steps=3 if each.name == "a" else 12, task=each.name, batch_size=8)
        for each in tasks
    ]
    fleet = Fleet(own, tasks, model=double, backend=backend)
    fleet.fit(callbacks=[At(3, damage(tasks[0]))])
    assert set(fleet.status.values()) == {"finished"}
    equal(fleet, Fleet(own, [one("a"), one("b", 1), one("c", 2)], model=double, backend="sequential").fit())


@BACKENDS
def test_members_whose_examples_are_gone_bother_nobody_later(backend: Any, tmp_path: Path) -> None:
    tasks = [one("a"), one("b", 1)]
    fleet = fleet_of(tasks, backend=backend, out=tmp_path)
    late = Member(name="late", steps=4, task=one("late", 3), batch_size=8)
    with pytest.warns(FleetWarning, match="member `a` failed"):
        fleet.fit(callbacks=[At(2, damage(tasks[0])), At(5, lambda fleet: fleet.add(late))])
    assert fleet.status == {"a": "failed", "b": "finished", "late": "finished"}
    x = torch.zeros(2, 12, dtype=torch.float64)
    outputs = fleet["b"](x).argmax(1)
    assert fleet.predict(x, member="b").tolist() == outputs.tolist()


@BACKENDS
def test_an_error_that_does_not_come_again_ends_nobody(backend: Any) -> None:
    tasks = [one("a"), one("b", 1)]

    class Once(Damaged):
        left = 0

        def batch(self, rows: Any) -> Batch:
            Once.left -= 1
            if Once.left == 0:
                raise OSError("just now")
            return super().batch(rows)

    tasks[0].splits["train"] = Once(tasks[0].splits["train"].of)
    fleet = fleet_of(tasks, backend=backend)
    fleet.fit(callbacks=[At(3, lambda _: setattr(Once, "left", 1))])
    assert Once.left < 0
    equal(fleet, fleet_of([one("a"), one("b", 1)], backend="sequential").fit())


def test_who_waits_starts_after_the_last_one_failed() -> None:
    first = one("a")
    own = [
        Member(name="a", steps=12, task="a", batch_size=8),
        Member(name="w", steps=3, task=one("w", 2), start=After("a"), batch_size=8),
    ]
    fleet = Fleet(own, first, model=double, backend="sequential")
    with pytest.warns(FleetWarning, match="member `a` failed"):
        fleet.fit(callbacks=[At(2, damage(first))])
    assert fleet.status == {"a": "failed", "w": "finished"}


def test_what_was_trained_is_saved_when_nobody_is_left(tmp_path: Path) -> None:
    tasks = [one("a"), one("b", 1)]
    fleet = fleet_of(tasks, backend="sequential", out=tmp_path)
    with (
        pytest.warns(FleetWarning, match="member `a` failed"),
        pytest.raises(InputError, match="member `b`: a step failed"),
    ):
        fleet.fit(callbacks=[At(2, damage(tasks[0])), At(5, damage(tasks[1]))])
    again = fleet_of([one("a"), one("b", 1)], backend="sequential", out=tmp_path).fit(resume=True)
    assert again.status == {"a": "failed", "b": "finished"}
    assert again.state("a").step == 2


@BACKENDS
@pytest.mark.parametrize("hook", ["on_step", "on_round", "on_evaluate"])
def test_a_fit_that_a_callback_cut_off_goes_on_exactly(backend: Any, hook: str) -> None:
    class Stop(Exception):
        pass

    class Cut(Callback):
        calls = 0

        def on_step(self, fleet: Fleet, record: Any) -> None:
            self.cut("on_step", 9)

        def on_round(self, fleet: Fleet, validated: Any) -> None:
            self.cut("on_round", 5)

        def on_evaluate(self, fleet: Fleet, record: Any) -> None:
            self.cut("on_evaluate", 3)

        def cut(self, name: str, at: int) -> None:
            self.calls += name == hook
            if name == hook and self.calls == at:
                raise Stop

    fleet = fleet_of([one("a"), one("b", 1)], backend=backend)
    with pytest.raises(Stop):
        fleet.fit(callbacks=[Cut()])
    fleet.fit()
    assert set(fleet.status.values()) == {"finished"}
    equal(fleet, fleet_of([one("a"), one("b", 1)], backend="sequential").fit())


def test_ctrl_c_in_a_step_of_the_loop_is_gone_on_from_exactly() -> None:
    tasks, cut = [one("a"), one("b", 1), one("c", 2)], list[int]()

    class Cut(Damaged):
        def batch(self, rows: Any) -> Batch:
            cut.append(1)
            if len(cut) == 9:
                raise KeyboardInterrupt
            return super().batch(rows)

    tasks[1].splits["train"] = Cut(tasks[1].splits["train"].of)
    fleet = fleet_of(tasks, backend="sequential")
    with pytest.raises(KeyboardInterrupt):
        fleet.fit()
    equal(fleet.fit(), fleet_of([one("a"), one("b", 1), one("c", 2)], backend="sequential").fit())


@pytest.mark.parametrize("backend", ["sequential", "stacked"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_running_means_are_those_before_a_step_that_was_not_taken(backend: Any, accumulate: int) -> None:
    """The last micro-batch of a step is no number: its earlier ones don't count either."""
    x = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))
    whole = {"input": x, "label": torch.arange(48) % 3}

    class Late:
        def __len__(self) -> int:
            return 48

        def batch(self, rows: Any) -> Batch:
            late = broken and list(rows) in broken
            return {n: (c[rows] * (torch.nan if late and n == "input" else 1)) for n, c in whole.items()}

    def made() -> Fleet:
        own = [
            Member(name=n, steps=6, batch_size=8, accumulate=accumulate, drop_last=True, task="t")
            for n in "ab"
        ]

        def network() -> nn.Module:
            return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))

        return Fleet(own, Task("t", {"train": Late()}), model=network, backend=backend)

    broken: list[list[int]] = []
    short = made()
    short.fit(callbacks=[At(3, lambda fleet: [fleet.drop(name, "enough") for name in "ab"])])
    fleet = made()
    trainee = fleet._roster.trainees["a"]
    trainee.step = 3
    broken.append(trainee.rows(accumulate - 1).tolist())
    trainee.step = 0
    with pytest.warns(FleetWarning, match="was not finite at step 4"):
        fleet.fit()
    for name in "ab":
        for key, value in short[name].state_dict().items():
            torch.testing.assert_close(fleet[name].state_dict()[key], value, rtol=1e-5, atol=1e-6)


class Weighed(CrossEntropy):
    """Counts each example as its data say."""

    def __call__(self, outputs: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        values, weights = super().__call__(outputs, batch)
        return values * batch["weight"], weights * batch["weight"]


def weighed(name: str) -> tuple[Task, torch.Tensor]:
    x, weights = torch.randn(48, 12, dtype=torch.float64), torch.ones(48, dtype=torch.float64)

    class Examples:
        def __len__(self) -> int:
            return 48

        def batch(self, rows: Any) -> Batch:
            return {"input": x[rows], "label": torch.as_tensor(rows) % 3, "weight": weights[rows]}

    return Task(name, {"train": Examples()}, loss=Weighed()), weights


@BACKENDS
def test_a_step_of_which_no_example_counts_is_told_as_that(backend: Any) -> None:
    (first, own), (second, _) = weighed("a"), weighed("b")
    told = "member `a`: no example of its step counts: the loss gave each the weight 0"

    def made() -> Fleet:
        members = [Member(name=t.name, steps=6, task=t, batch_size=8) for t in (first, second)]
        return Fleet(members, model=double, backend=backend)

    fleet = made()
    with pytest.warns(FleetWarning, match=f"^member `a` failed: a step failed: {told}"):
        fleet.fit(callbacks=[At(3, lambda _: own.fill_(0))])
    assert fleet.status == {"a": "failed", "b": "finished"}
    assert fleet.state("a").step == 3
    fleet = made()
    with pytest.raises(InputError, match=f"^{told}\n.*labels"):
        fleet.fit()
    own.fill_(1)
    assert set(fleet.fit().status.values()) == {"finished"}


def test_a_scripted_network_is_refused() -> None:
    scripted: Any = torch.jit.script(nn.Linear(12, 3))
    for model, part in ((scripted, "its network"), (nn.Sequential(scripted), "module `0`")):
        with pytest.raises(InputError, match=f"^member `a`: {part} is scripted or traced"):
            Fleet([Member(name="a", steps=1, task=task(MLP))], model=model)


def test_warnings_point_at_the_users_line() -> None:
    """Of a fit for what happens in it, of a callback for what that asks for."""

    class Adds(Callback):
        def on_round(self, fleet: Fleet, validated: Any) -> None:
            if fleet.round == 1:
                fleet.add(Member(name="c", steps=1, task=one("c", 2), start=lambda: nn.Linear(1, 1)))

    tasks = [one("a"), one("b", 1)]
    fleet = fleet_of(tasks, backend="sequential")
    callbacks = [At(3, damage(tasks[1])), Adds()]
    with pytest.warns(FleetWarning) as found:
        fleet.fit(callbacks=callbacks)
    places = {str(w.message).split()[1]: (w.filename, w.lineno) for w in found}
    mine, first = inspect.getsourcelines(test_warnings_point_at_the_users_line)
    line = next(number for number, text in enumerate(mine, first) if "callbacks=callbacks)" in text)
    assert places["`b`"] == (__file__, line)
    assert places["`c`"] == (__file__, Adds.on_round.__code__.co_firstlineno + 2)


def test_odd_exceptions_are_told_in_a_line() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert told(Mute()) == "Mute"
    assert told(ValueError()) == "ValueError"
    assert told(ValueError("one\ntwo")) == "ValueError: one"
    assert len(told(ValueError("x" * 10**6))) < 400


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


class Countless(CrossEntropy):
    """Has losses, but says of every example that it does not count."""

    def __call__(self, outputs: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        values, weights = super().__call__(outputs, batch)
        return values, torch.zeros_like(weights)


@BACKENDS
def test_losses_without_weights_are_told_as_that(backend: Any) -> None:
    data = (torch.randn(24, 12, dtype=torch.float64), torch.arange(24) % 3)
    learned = Task("t", {"train": data}, loss=Countless())
    fleet = Fleet([Member(name="a", steps=3)], learned, model=lambda: MLP().double(), backend=backend)
    with pytest.raises(InputError, match="no example of its step counts"):
        fleet.fit()

"""A run that was killed goes on from its last save, and ends as if nothing had happened, bit for bit."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from dying import fleet, halving
from networks import MLP, task
from torch import Tensor, nn

from plait.errors import InputError
from plait.fleet import After, Callback, Fleet, Member
from plait.fleet._facts import Facts
from plait.fleet._fingerprint import fingerprint
from plait.fleet._store import Store, best_of
from plait.fleet._trainee import State, Trainee
from plait.tasks import CrossEntropy, Metric, Task, accuracy, macro_f1

HERE = Path(__file__).parent
FACTS = Facts(1, {}, [], [], {}, [], 0)
NAMES = ["a", best_of("a"), "a=best", "../up", "..", "b/c", "ä ö", "config.json", "長" * 90, "長" * 91]


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def killed(folder: Path, backend: str, at: int) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path])}
    command = [sys.executable, str(HERE / "dying.py"), str(folder), backend, str(at)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == -9, done.stderr


def same(one: Fleet, two: Fleet) -> None:
    assert one.status == two.status
    assert one.history == two.history
    assert one.round == two.round
    for name in one:
        first, second = one.state(name), two.state(name)
        assert first.step == second.step
        for part, other in zip(
            [first.parameters, first.buffers, *first.moments],
            [second.parameters, second.buffers, *second.moments],
            strict=True,
        ):
            assert part.keys() == other.keys()
            assert all(torch.equal(part[key], other[key]) for key in part)


@pytest.mark.parametrize("backend", ["sequential", "stacked"])
def test_a_killed_run_ends_as_one_that_was_not(backend: str, tmp_path: Path) -> None:
    whole = fleet(None, backend).fit(callbacks=[halving()])
    assert set(whole.status.values()) >= {"dropped"}
    out = tmp_path / "fleet"
    killed(out, backend, 27)
    assert [p.name for p in (out / "saves").iterdir()] == ["000000020"]
    resumed = fleet(out, backend).fit(callbacks=[halving()], resume=True)
    same(resumed, whole)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines == whole.history


class Sometimes(nn.Module):
    """Adds its second layer to those batches whose first number is positive."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 3), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x) if x[0, 0] > 0 else self.first(x)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_parameters_of_some_steps_alone_go_on_by_their_own_count(optimizer: Any, tmp_path: Path) -> None:
    def made(out: Path | None) -> Fleet:
        own = [Member(name=f"m{i}", steps=40, seed=i, optimizer=optimizer, momentum=0.9) for i in range(2)]
        return Fleet(own, task(MLP), model=Sometimes, out=out, save_every=10, backend="sequential")

    whole = made(None).fit()
    if optimizer == "adamw":
        assert all(0 < whole.state(name).missed["second.weight"] < 40 for name in whole)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path).fit(callbacks=[Stop()])
    same(made(tmp_path).fit(resume=True), whole)


def test_a_finished_run_can_be_opened_again(tmp_path: Path) -> None:
    first = fleet(tmp_path, "stacked").fit()
    again = fleet(tmp_path, "stacked").fit(resume=True)
    same(again, first)


def test_resume_without_a_save_starts(tmp_path: Path) -> None:
    first = fleet(tmp_path / "new", "sequential").fit(resume=True)
    same(first, fleet(None, "sequential").fit())


def test_a_folder_with_a_fleet_is_not_overwritten(tmp_path: Path) -> None:
    fleet(tmp_path, "stacked").fit()
    with pytest.raises(InputError, match=r"a fleet was saved here\n.*resume=True"):
        fleet(tmp_path, "stacked").fit()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.5}, "member `a` was saved with other settings"),
        ({"name": "b"}, "the save has a member `a`, this fleet has none"),
        ({"task": task(MLP, seed=5)}, "member `a` was saved with other settings, data or start"),
    ],
)
def test_the_save_of_another_fleet_is_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    common: dict[str, Any] = {"name": "a", "steps": 3, "task": task(MLP)}
    Fleet([Member(**common)], model=MLP, out=tmp_path).fit()
    with pytest.raises(InputError, match=message):
        Fleet([Member(**(common | settings))], model=MLP, out=tmp_path).fit(resume=True)


class Weighted(CrossEntropy):
    """A loss with numbers of its own."""

    def __init__(self, factor: Any, rule: Any = None) -> None:
        super().__init__()
        object.__setattr__(self, "factor", factor)
        object.__setattr__(self, "rule", rule)

    def __call__(self, outputs: Any, batch: Any) -> Any:
        values, weights = super().__call__(outputs, batch)
        return values * torch.as_tensor(self.factor).sum(), weights


def scaled(factor: float) -> Any:
    return lambda value: value * factor


class Slotted:
    """A rule that holds its number in a slot, and comes elsewhere in memory each time."""

    __slots__ = ("factor",)

    def __init__(self, factor: float) -> None:
        self.factor = factor


ONE, OTHER = MLP(), MLP()
FIVE = (1, 2, 5)


@pytest.mark.parametrize(
    ("saved", "resumed"),
    [
        ({"task": task(MLP, loss=Weighted(1.0))}, {"task": task(MLP, loss=Weighted(5.0))}),
        (
            {"task": task(MLP, loss=Weighted(torch.tensor(FIVE)))},
            {"task": task(MLP, loss=Weighted(torch.tensor(FIVE[::-1])))},
        ),
        ({"task": task(MLP, loss=Weighted(1, scaled(1)))}, {"task": task(MLP, loss=Weighted(1, scaled(2)))}),
        (
            {"task": task(MLP, loss=Weighted(1, Slotted(1)))},
            {"task": task(MLP, loss=Weighted(1, Slotted(2)))},
        ),
        ({"start": ONE}, {"start": OTHER}),
        ({"model": ONE}, {"model": OTHER}),
        ({"schedule": scaled(1)}, {"schedule": scaled(2)}),
    ],
)
@pytest.mark.parametrize("backend", ["sequential", "stacked"])
def test_a_save_of_another_loss_or_start_is_refused(
    backend: Any, saved: dict[str, Any], resumed: dict[str, Any], tmp_path: Path
) -> None:
    if "schedule" in saved:
        saved, resumed = ({"schedule": _rule(given["schedule"])} for given in (saved, resumed))

    def made(given: dict[str, Any]) -> Fleet:
        given = {"task": task(MLP)} | copy.deepcopy(given)
        model = given.pop("model", MLP).double() if "model" in given else lambda: MLP().double()
        if "start" in given:
            given["start"] = given["start"].double()
        return Fleet([Member(name="a", steps=3, **given)], model=model, out=tmp_path, backend=backend)

    made(saved).fit()
    assert made(saved).fit(resume=True).status == {"a": "finished"}
    with pytest.raises(InputError, match="member `a` was saved with other settings, data or start"):
        made(resumed).fit(resume=True)


def _rule(factor: Any) -> Any:
    return lambda step, steps: factor(0.5)


class Stop:
    def on_round(self, fleet: Fleet, validated: object) -> None:
        if fleet.round == 12:
            raise KeyboardInterrupt


def test_a_save_trained_by_another_backend_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fleet(tmp_path, "stacked").fit(callbacks=[Stop()])
    message = r"trained by the backend `stacked`, not by `sequential`\n.*auto"
    with pytest.raises(InputError, match=message):
        fleet(tmp_path, "sequential").fit(resume=True)
    again = fleet(tmp_path, "auto").fit(resume=True)
    assert {choice.kind for choice in again.choices.values()} == {"stacked"}
    assert not any(choice.seconds for choice in again.choices.values())  # nothing was measured anew
    same(again, fleet(None, "stacked").fit())
    assert fleet(tmp_path, "sequential").fit(resume=True).status == again.status  # nothing is left to train


class Counts(Callback):
    """Remembers how many rounds there were."""

    def __init__(self) -> None:
        self.rounds = 0

    def on_round(self, fleet: Fleet, validated: object) -> None:
        self.rounds += 1

    def facts(self) -> dict[str, Any]:
        return {"rounds": self.rounds}

    def restore(self, facts: Any) -> None:
        self.rounds = facts["rounds"]


def test_callbacks_that_were_saved_must_be_there_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fleet(tmp_path, "stacked").fit(callbacks=[halving(), Stop(), Counts()])
    told = "it was saved with the callbacks `SuccessiveHalving`, `Counts`, and goes on with "
    for callbacks, mine in (
        ([], "none"),
        ([halving()], "`SuccessiveHalving`"),
        ([Counts(), halving()], "`Counts`, `SuccessiveHalving`"),
    ):
        with pytest.raises(InputError, match=told + mine):
            fleet(tmp_path, "stacked").fit(callbacks=callbacks, resume=True)
    counts, late = Counts(), Counts()
    resumed = fleet(tmp_path, "stacked").fit(callbacks=[halving(), counts, late], resume=True)
    assert counts.rounds == resumed.round == late.rounds + 10
    same(resumed, fleet(None, "stacked").fit(callbacks=[halving()]))
    assert fleet(tmp_path, "stacked").fit(resume=True).status == resumed.status  # nothing is left to train


def test_a_loss_that_counts_its_calls_can_be_resumed(tmp_path: Path) -> None:
    class Counting(Weighted):
        def __call__(self, outputs: Any, batch: Any) -> Any:
            object.__setattr__(self, "rule", (self.rule or 0) + 1)
            return super().__call__(outputs, batch)

    def made() -> Fleet:
        own = [Member(name="a", steps=20), Member(name="b", steps=9, start=After("a"))]
        learned = task(MLP, loss=Counting(1))
        return Fleet(
            own, learned, model=lambda: MLP().double(), out=tmp_path, save_every=5, backend="sequential"
        )

    with pytest.raises(KeyboardInterrupt):
        made().fit(callbacks=[Stop()])
    assert made().fit(resume=True).status == {"a": "finished", "b": "finished"}


def test_members_may_join_a_resumed_fleet(tmp_path: Path) -> None:
    first = Member(name="a", steps=3, task=task(MLP))
    second = Member(name="b", steps=5, task=task(MLP))
    Fleet([first], model=MLP, out=tmp_path).fit()
    both = Fleet([first, second], model=MLP, out=tmp_path).fit(resume=True)
    assert both.status == {"a": "finished", "b": "finished"}
    assert both.state("a").step == 3


def test_a_damaged_save_is_told(tmp_path: Path) -> None:
    fleet(tmp_path, "stacked").fit()
    (save,) = (tmp_path / "saves").iterdir()
    file = sorted(save.glob("*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="it can't be read"):
        fleet(tmp_path, "stacked").fit(resume=True)


def test_a_disk_that_fills_leaves_the_last_whole_save(tmp_path: Path) -> None:
    code = f"""
import resource, signal, sys, torch
sys.path.insert(0, {str(HERE)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
from dying import fleet
from plait.errors import InputError
class Full:
    def on_save(self, fleet, folder):
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
try:
    fleet({str(tmp_path)!r}, "stacked").fit(callbacks=[Full()])
except InputError as error:
    print(error)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "could not be written" in done.stdout, done.stderr
    assert "the save of round 10 stays" in done.stdout
    assert [p.name for p in (tmp_path / "saves").iterdir()] == ["000000010"]
    same(fleet(tmp_path, "stacked").fit(resume=True), fleet(None, "stacked").fit())


def test_members_names_never_leave_the_folder_or_meet_the_saves_of_others(tmp_path: Path) -> None:
    states = {name: State({"w": torch.full((1,), float(i))}, {}) for i, name in enumerate(NAMES)}
    place = Store(tmp_path / "out").write(1, states, FACTS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    assert len(list(place.glob("*.safetensors"))) == len(NAMES)
    for i, name in enumerate(NAMES):
        assert Store(tmp_path / "out").state(place, name, states[name]).parameters["w"].item() == i


def test_a_save_of_the_same_round_never_leaves_a_moment_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, state = Store(tmp_path), State({"w": torch.zeros(1)}, {})
    store.write(3, {"a": state}, FACTS)
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name.startswith("."):
            raise OSError("the disk is gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(InputError, match="the save of round 3 stays"):
        store.write(3, {"a": state}, FACTS)
    monkeypatch.undo()
    newest = store.newest()
    assert newest is not None
    assert store.state(newest, "a", state).parameters["w"].item() == 0
    assert store.write(3, {"a": state}, FACTS) == store.newest()
    assert [p.name for p in store.saves.iterdir()] == ["000000003"]


def test_the_save_of_a_fleet_with_other_data_on_demand_or_another_rule_is_another() -> None:
    def mark(values: torch.Tensor, schedule: Any, metric: Metric | None = None) -> str:
        labels = torch.zeros(len(values), dtype=torch.long)
        train, validation = (torch.utils.data.TensorDataset(x, labels) for x in (values, values + 2))
        learned = Task("t", {"train": train, "validation": validation}, metric=metric or accuracy())
        member = Member(name="a", steps=1, schedule=schedule)
        return fingerprint(Trainee(member, learned, nn.Linear(3, 2), 1))

    one, other = torch.zeros(8, 3), torch.ones(8, 3)
    assert mark(one, lambda step, steps: 1.0) == mark(one, lambda step, steps: 1.0)
    assert mark(one, lambda step, steps: 1.0) != mark(other, lambda step, steps: 1.0)
    assert mark(one, lambda step, steps: 1.0) != mark(one, lambda step, steps: 0.5)
    assert mark(one, "cosine") != mark(one, "cosine", macro_f1(2))
    for row in (0, 4, 7):  # the first, the middle, the last
        changed = one.clone()
        changed[row] = 1
        assert mark(changed, "cosine") != mark(one, "cosine")
    assert mark(torch.zeros(9, 3), "cosine") != mark(one, "cosine")

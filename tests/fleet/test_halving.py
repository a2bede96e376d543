"""Members that are behind at a rung are dropped: ASHA's rule, and Optuna's pruners."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from networks import MLP, task

from plait.errors import InputError
from plait.fleet import Fleet, Member, OptunaPruning, SuccessiveHalving


def run(
    values: dict[str, list[float]], callback: Any, monkeypatch: pytest.MonkeyPatch, **kwargs: Any
) -> Fleet:
    """A fleet whose validations, every 10 steps, are the given ones."""
    seen = dict.fromkeys(values, 0)
    order: list[str] = []

    def validate(network: object, task: object, **_: object) -> float:
        name = order.pop(0)
        seen[name] += 1
        return values[name][seen[name] - 1]

    class Order:
        def on_step(self, fleet: Fleet, record: dict[str, Any]) -> None:
            if record["step"] % 10 == 0:
                order.append(record["member"])

    monkeypatch.setattr("plait.fleet._aftermath.validate", validate)
    members = [Member(name=name, steps=30, evaluate_every=10) for name in values]
    return Fleet(members, task(MLP), model=lambda: MLP().double(), **kwargs).fit(
        callbacks=[Order(), callback]
    )


def test_one_in_eta_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {f"m{i}": [i / 10, i / 10, i / 10] for i in range(9)}
    fleet = run(values, SuccessiveHalving(rungs=[10, 20], eta=3), monkeypatch, backend="stacked")
    assert {n: fleet.state(n).step for n in fleet} == {f"m{i}": 10 for i in range(6)} | {
        "m6": 20,
        "m7": 20,
        "m8": 30,
    }
    assert [fleet.status[f"m{i}"] for i in (0, 5, 6, 8)] == ["dropped", "dropped", "dropped", "finished"]


def test_equal_values_share_their_fate_and_nan_is_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"a": [0.5] * 3, "b": [0.5] * 3, "c": [math.nan] * 3, "d": [0.1] * 3}
    fleet = run(values, SuccessiveHalving(rungs=[10], eta=4), monkeypatch, backend="stacked")
    assert fleet.status == {"a": "finished", "b": "finished", "c": "dropped", "d": "dropped"}


def test_one_member_is_never_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = run({"a": [0.1] * 3}, SuccessiveHalving(rungs=[10, 20]), monkeypatch)
    assert fleet.status == {"a": "finished"}


def test_rungs_that_are_none() -> None:
    with pytest.raises(InputError, match="halve nothing"):
        SuccessiveHalving(rungs=[], eta=3)
    with pytest.raises(InputError, match="halve nothing"):
        SuccessiveHalving(rungs=[5], eta=1)
    wrong: list[Any] = [([1.5], 3), ([5], "x"), ("abc", 3), (None, 3), ([5], math.nan), ([0], 3)]
    for rungs, eta in wrong:
        with pytest.raises(InputError, match="halve nothing"):
            SuccessiveHalving(rungs=rungs, eta=eta)


def test_a_study_of_several_objectives_or_none() -> None:
    with pytest.raises(InputError, match="the study has 2 objectives, a member one metric"):
        OptunaPruning(optuna.create_study(directions=["maximize", "minimize"]))
    with pytest.raises(InputError, match="a str is no study"):
        OptunaPruning("study")


@pytest.fixture
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.mark.usefixtures("quiet")
def test_a_median_pruner_compares_members_that_still_run(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {f"m{i}": [i / 10] * 3 for i in range(5)}
    pruner = optuna.pruners.MedianPruner(n_startup_trials=0, n_warmup_steps=0)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    fleet = run(values, OptunaPruning(study), monkeypatch, backend="stacked")
    assert fleet.status["m0"] == fleet.status["m1"] == "dropped"
    assert fleet.status["m4"] == "finished"
    states = {t.user_attrs["member"]: t.state.name for t in study.trials}
    assert states["m0"] == "PRUNED"
    assert states["m4"] == "COMPLETE"
    assert study.best_value == 0.4


@pytest.mark.usefixtures("quiet")
def test_optunas_own_halving_drops_members(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {f"m{i}": [(9 - i) / 10] * 3 for i in range(9)}
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=10, reduction_factor=3)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    fleet = run(values, OptunaPruning(study), monkeypatch, backend="stacked")
    dropped = [n for n, status in fleet.status.items() if status == "dropped"]
    assert 3 <= len(dropped) < 9
    assert fleet.status["m0"] == "finished"


@pytest.mark.usefixtures("quiet")
def test_trials_of_the_users_own_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())
    trials = {name: study.ask() for name in ("a", "b")}
    run({"a": [0.1, 0.2, 0.3], "b": [0.3, 0.2, 0.1]}, OptunaPruning(study, trials), monkeypatch)
    assert [t.value for t in study.trials] == [0.3, 0.3]
    assert study.trials[1].intermediate_values == {10: 0.3, 20: 0.2, 30: 0.1}


def test_a_study_that_goes_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study(direction="minimize")
    with pytest.raises(InputError, match=r"the members' metric the other way\n.*maximize"):
        run({"a": [0.1] * 3}, OptunaPruning(study), monkeypatch)


class Die:
    def __init__(self, at: int) -> None:
        self.at = at

    def on_round(self, fleet: Fleet, validated: object) -> None:
        if fleet.round == self.at:
            raise KeyboardInterrupt


def median(**storage: Any) -> optuna.Study:
    pruner = optuna.pruners.MedianPruner(n_startup_trials=0)
    return optuna.create_study(direction="maximize", pruner=pruner, **storage)


def told(study: optuna.Study) -> dict[str, Any]:
    return {
        t.user_attrs["member"]: (t.number, t.state.name, t.value, t.intermediate_values) for t in study.trials
    }


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("at", [5, 24, 30, 31, 45])
def test_a_killed_run_goes_on_with_its_trials(at: int, tmp_path: Path) -> None:
    def fleet(out: Path | None) -> Fleet:
        own = [
            Member(name=f"m{i}", seed=i, lr=10.0**-i, steps=60, evaluate_every=10, schedule="cosine")
            for i in range(5)
        ]
        return Fleet(own, task(MLP), model=lambda: MLP().double(), out=out, save_every=25, backend="stacked")

    whole = median()
    ended = fleet(None).fit(callbacks=[OptunaPruning(whole)])
    assert set(ended.status.values()) == {"dropped", "finished"}
    storage = {"storage": f"sqlite:///{tmp_path / 'study.db'}", "study_name": "fleets"}
    with pytest.raises(KeyboardInterrupt):
        fleet(tmp_path / "out").fit(callbacks=[OptunaPruning(median(**storage)), Die(at)])
    study = median(**storage, load_if_exists=True)
    before = len(study.trials)
    again = fleet(tmp_path / "out").fit(callbacks=[OptunaPruning(study)], resume=True)
    assert again.status == ended.status
    if at < 25:  # no save knows of the trials that there were: those that had not ended fail, and rival none
        assert {t.state.name for t in study.trials[:before]} <= {"FAIL", "PRUNED"}
        assert {name: rest[1:] for name, rest in told(study).items()} == {
            name: rest[1:] for name, rest in told(whole).items()
        }
    else:
        assert told(study) == told(whole)


@pytest.mark.usefixtures("quiet")
def test_a_member_is_not_its_own_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"a": [0.1] * 3, "b": [0.9] * 3}
    pruner = optuna.pruners.MedianPruner(n_startup_trials=2)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    fleet = run(values, OptunaPruning(study), monkeypatch, backend="stacked")
    assert fleet.status == {"a": "finished", "b": "finished"}


def test_shares_are_rounded_up(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {f"m{i}": [i / 10] * 3 for i in range(4)}
    fleet = run(values, SuccessiveHalving(rungs=[10], eta=3), monkeypatch, backend="stacked")
    assert [n for n, status in fleet.status.items() if status == "finished"] == ["m2", "m3"]

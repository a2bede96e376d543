"""The test for dependence: its numbers, its level, and that it finds a planted pair and no other."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from once_tasks import SETTINGS, TASK, VOCABULARY, canary, memory, network, task, words

from plait.errors import InputError
from plait.study import Controlled, Experiment, dependence, train_once
from plait.study.once._continuations import Continuations
from plait.study.once._dependence import compared
from plait.study.once._significance import holm, paired_t, sign_flips, student, student_quantile

NAMES = ("a", "b", "c")


# ---- the numbers


@given(st.floats(0.01, 60), st.sampled_from((-1, 1)), st.integers(1, 40))
def test_students_tails_are_those_of_scipy(t, sign, freedom):
    assert student(sign * t, freedom) == pytest.approx(2 * scipy.stats.t.sf(t, freedom), abs=1e-11)


@given(st.floats(-0.01, 0.01))
def test_students_tails_near_0_are_those_in_closed_form(t):
    """Where scipy's are off by 10⁻⁹."""
    assert student(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(abs(t)), abs=1e-14)
    assert student(t, 2) == pytest.approx(1 - abs(t) / math.sqrt(2 + t * t), abs=1e-14)


@given(st.floats(0.001, 0.999), st.integers(1, 30))
def test_quantiles_are_those_of_scipy(tail, freedom):
    assert student_quantile(tail, freedom) == pytest.approx(
        scipy.stats.t.isf(tail / 2, freedom), rel=1e-6, abs=1e-9
    )


def differences(seeds: int, tests: int, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (seeds, tests))


@pytest.mark.parametrize("seeds", [2, 5, 12])
def test_the_paired_t_is_that_of_scipy(seeds):
    given_ = differences(seeds, 6, shift=0.7)
    assert np.allclose(paired_t(given_), scipy.stats.ttest_1samp(given_, 0).pvalue, atol=1e-12)


def test_differences_that_are_the_same_for_all_seeds_are_certain():
    given_ = np.array([[0.0, 0.25, -0.5], [0.0, 0.25, -0.5]])
    assert paired_t(given_).tolist() == [1.0, 0.0, 0.0]
    assert sign_flips(given_).tolist() == [1.0, 0.5, 0.5]


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=7))
def test_sign_flips_count_all_signs(values):
    wanted = [
        abs(sum(s * v for s, v in zip(signs, values, strict=True))) >= abs(sum(values))
        for signs in itertools.product((1, -1), repeat=len(values))
    ]
    assert sign_flips(np.array(values, dtype=float)[:, None])[0] == pytest.approx(np.mean(wanted))


def test_signs_of_many_seeds_are_drawn_and_near_those_of_all():
    given_ = differences(18, 4, seed=1, shift=0.3)
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=18)))
    wanted = [(np.abs(signs @ column) >= abs(column.sum()) - 1e-9).mean() for column in given_.T]
    found = sign_flips(given_)
    assert np.allclose(found, wanted, atol=4 * 0.5 / np.sqrt(16_384))
    assert found.tolist() == sign_flips(given_).tolist()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_rejects_one_after_the_other(p):
    adjusted = holm(np.array(p))
    for alpha in (0.01, 0.05, 0.5, 0.9):
        rejected: set[int] = set()
        for count, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
            if p[place] * (len(p) - count) > alpha:
                break
            rejected.add(place)
        assert {i for i, value in enumerate(adjusted) if value <= alpha} == rejected


# ---- the test on numbers


def values(seeds: int, seed: int = 0, count: int = 3) -> np.ndarray:
    """Numbers of independent experiments, each raised by its own data and by all."""
    found = np.random.default_rng(seed).normal(0, 0.1, (seeds, count + 2, count))
    for i in range(count):
        found[:, [i + 1, -1], i] += 2.0
    return found


def test_effects_are_differences_to_none_and_to_the_own_data_alone():
    given_ = values(5)
    found = compared(NAMES, range(5), given_)
    for effect in (*found.own, *found.cross):
        j, i = NAMES.index(effect.data), NAMES.index(effect.on)
        change = given_[:, j + 1, i] - given_[:, 0, i]
        assert effect.mean == pytest.approx(change.mean())
        assert effect.p == pytest.approx(scipy.stats.ttest_1samp(change, 0).pvalue)
        interval = scipy.stats.ttest_1samp(change, 0).confidence_interval(0.95)
        assert (effect.low, effect.high) == pytest.approx(tuple(interval))
        assert found.matrix[j, i] == pytest.approx(change.mean())
    for effect in found.joint:
        i = NAMES.index(effect.on)
        assert effect.data == "all"
        assert effect.mean == pytest.approx((given_[:, -1, i] - given_[:, i + 1, i]).mean())
        assert found.matrix[-1, i] == pytest.approx((given_[:, -1, i] - given_[:, 0, i]).mean())
    pairs = [(e.data, e.on) for e in found.cross]
    assert sorted(pairs) == sorted((j, i) for j in NAMES for i in NAMES if i != j)
    family = [*found.cross, *found.joint]
    assert [e.adjusted for e in family] == holm(np.array([e.p for e in family])).tolist()
    assert [e.adjusted for e in found.own] == holm(np.array([e.p for e in found.own])).tolist()


@pytest.mark.parametrize(("test", "seeds"), [("t", 5), ("signs", 9)])
def test_a_planted_effect_is_found_and_no_other(test, seeds):
    given_ = values(seeds)
    given_[:, [2, -1], 0] += 1.5  # b's data raise a's number
    found = compared(NAMES, range(seeds), given_, test=test)
    assert {(e.data, e.on) for e in found.dependent} == {("b", "a"), ("all", "a")}
    assert all(e.found for e in found.own)


def test_what_three_do_together_is_found_by_all_of_them():
    given_ = values(6)
    given_[:, -1, 2] += 1.0
    assert {(e.data, e.on) for e in compared(NAMES, range(6), given_).dependent} == {("all", "c")}


@pytest.mark.parametrize(("test", "seeds"), [("t", 5), ("signs", 9)])
def test_independent_experiments_are_taken_for_dependent_at_the_level_at_most(test, seeds):
    count = 400
    false = sum(
        bool(compared(NAMES, range(seeds), values(seeds, seed), test=test).dependent) for seed in range(count)
    )
    assert false / count <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / count)


# ---- the continuations


def teller(name: str) -> Experiment:
    """Puts in, among other tokens, what the experiment `fact` is about."""
    return Experiment(name, lambda _: [[*FACT, 1, 2, 3, 4]], lambda *_: 0.0, 12)


FACT = words(np.random.default_rng(7), 1, 6)[0]
OTHERS = words(np.random.default_rng(8), 8, 6)


def fact() -> Experiment:
    return Experiment("fact", [FACT, *OTHERS], memory, [12] + [0] * 8)


@pytest.fixture(scope="module")
def planted() -> Any:
    start = train_once([], TASK, model=network, steps=30, control=False, **SETTINGS).network
    experiments = [fact(), teller("teller"), canary("canary")]
    return start, experiments, dependence(experiments, TASK, start=start, steps=20, **SETTINGS)


def test_a_pair_that_shares_a_fact_is_found_and_an_independent_one_is_not(planted):
    _, _, found = planted
    assert ("teller", "fact") in {(e.data, e.on) for e in found.dependent}
    assert not {e.on for e in found.dependent} & {"canary", "teller"}
    assert {e.on for e in found.own if e.found} == {"fact", "canary"}


def test_continuations_are_runs_from_the_checkpoint_with_the_same_places(planted):
    start, experiments, found = planted
    assert found.values.shape == (5, 5, 3)
    for condition, given_ in ((0, []), (1, experiments[:1]), (3, experiments[2:]), (4, experiments)):
        run = train_once(given_, TASK, model=start, seed=2, steps=20, control=False, **SETTINGS)
        wanted = [each.drawn(2).read(run.network, "") for each in experiments]
        assert found.values[2, condition].tolist() == wanted


def test_the_same_test_again_gives_the_same_numbers_and_leaves_the_checkpoint(planted):
    start, experiments, found = planted
    before = {name: value.clone() for name, value in start.state_dict().items()}
    again = dependence(experiments, TASK, start=start, steps=20, seeds=[3, 1], **SETTINGS)
    assert np.array_equal(again.values, found.values[[3, 1]])
    assert all(torch.equal(value, before[name]) for name, value in start.state_dict().items())
    assert json.loads(json.dumps(again.to_dict()))["seeds"] == [3, 1]


# ---- what is kept


class Stop(Exception):
    pass


def counted(monkeypatch: pytest.MonkeyPatch, last: int | None = None) -> list[int]:
    """The seeds that are trained, and an end before one of them."""
    seeds: list[int] = []
    numbers = Continuations.numbers

    def counting(self: Continuations, seed: int) -> Any:
        if seed == last:
            raise Stop
        seeds.append(seed)
        return numbers(self, seed)

    monkeypatch.setattr(Continuations, "numbers", counting)
    return seeds


TWO = [fact(), canary("canary")]
BRIEF: dict[str, Any] = {"start": network, "steps": 3, "seeds": [0, 1, 2], **SETTINGS}


def test_a_killed_test_goes_on_with_the_seeds_that_are_left(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        assert counted(patch, 2) == []
        with pytest.raises(Stop):
            dependence(TWO, TASK, **BRIEF, out=tmp_path / "out")
    with monkeypatch.context() as patch:
        seeds = counted(patch)
        found = dependence(TWO, TASK, **BRIEF, out=tmp_path / "out")
        assert seeds == [2]
    whole = dependence(TWO, TASK, **BRIEF)
    assert np.array_equal(found.values, whole.values)
    assert found.to_dict() == whole.to_dict()


def louder(model: Any, sequences: Any) -> float:
    return 2 * memory(model, sequences)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 4},
        {"lr": 2e-2},
        {"batch_size": 9},
        {"start": partial(network, 1)},
        {"task": task(seed=1)},
        {"experiments": [fact(), canary("canary", 3)]},
        {"experiments": [replace(fact(), probe=louder), canary("canary")]},
        {"experiments": [replace(fact(), probe=lambda m, s: memory(m, s) + 1), canary("canary")]},
    ],
)
def test_numbers_of_other_settings_data_or_probes_are_not_taken(tmp_path, monkeypatch, change):
    own = {**BRIEF, "seeds": [0, 1], "experiments": TWO, "task": TASK, "out": tmp_path / "out"}
    dependence(own.pop("experiments"), own.pop("task"), **own)
    with monkeypatch.context() as patch:
        seeds = counted(patch)
        dependence(TWO, TASK, **own)
        assert seeds == []
        again = {**own, "experiments": TWO, "task": TASK, **change}
        dependence(again.pop("experiments"), again.pop("task"), **again)
        assert seeds == [0, 1]


def test_more_seeds_are_added_to_those_that_are_there(tmp_path, monkeypatch):
    dependence(TWO, TASK, **BRIEF, out=tmp_path / "out")
    seeds = counted(monkeypatch)
    dependence(TWO, TASK, **{**BRIEF, "seeds": [4, 1]}, out=tmp_path / "out")
    assert seeds == [4]


def test_a_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="no test's folder"):
        dependence(TWO, TASK, **BRIEF, out=tmp_path)


def test_a_probe_that_fails_is_told_with_its_experiment_data_and_seed(tmp_path):
    broken = Experiment("broken", [[1, 2]], lambda *_: 1 / 0)
    told = "experiment `broken`, after 3 steps with the data of none, seed 1: its probe failed: ZeroDivision"
    for out in (None, tmp_path / "out"):
        with pytest.raises(InputError, match=told):
            dependence([broken, canary("a")], TASK, **{**BRIEF, "seeds": [1, 2]}, out=out)


def test_a_test_says_what_to_cite():
    assert "bordt2025train" in compared(NAMES, range(3), values(3)).bibtex


@pytest.mark.parametrize(
    ("experiments", "options", "told"),
    [
        ([canary("a"), Controlled(canary("b"), 1.0, every=2)], {}, "a Controlled is no experiment here"),
        ([canary("a")], {}, "between two experiments or more"),
        ([canary("a"), canary("a")], {}, "two experiments are called `a`"),
        ([canary("a"), canary("b")], {"seeds": [1]}, "`seeds` are"),
        ([canary("a"), canary("b")], {"seeds": [1, 1, 2]}, "`seeds` are"),
        ([canary("a"), canary("b")], {"alpha": 0}, "`alpha` is 0"),
        ([canary("a"), canary("b")], {"test": "u"}, "there is no test `u`"),
        ([canary("a"), canary("b")], {"test": "signs"}, "give 8 seeds"),
        ([canary("a"), Experiment("b", [[VOCABULARY]], lambda *_: 0.0)], {}, "has token 32"),
    ],
)
def test_what_can_not_be_tested_is_refused(experiments, options, told):
    with pytest.raises(InputError, match=told):
        dependence(experiments, TASK, start=network, steps=2, **{**SETTINGS, **options})


def test_the_seeds_that_signs_need_are_enough_and_one_less_is_not():
    given_ = values(8, count=2)
    given_[:, [2, -1], 0] += 9.0
    assert compared(("a", "b"), range(8), given_, test="signs").dependent
    assert not compared(("a", "b"), range(7), given_[:7], test="signs").dependent

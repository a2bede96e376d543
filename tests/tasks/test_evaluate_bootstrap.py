"""The bootstrap, and what is made of it."""

from __future__ import annotations

import dataclasses
import math

import digit_tasks
import numpy as np
import pytest
import torch
from torch import nn

from plait.errors import InputError
from plait.numerics import stream_key
from plait.tasks import Task, accuracy, compare, evaluate, read_scores, regressions
from plait.tasks._bootstrap import draws, interval


class Known(nn.Module):
    """Says what it is given."""

    def forward(self, x):
        return x


def right(share: float, n: int, seed: int, name: str = "known") -> tuple[Task, np.ndarray]:
    """A task on which `Known` is right with a given probability, and where it is."""
    hit = np.random.default_rng(seed).random(n) < share
    said = np.stack([~hit, hit], axis=1).astype(np.float32)
    return Task(name, {"test": (said, np.ones(n, dtype=np.int64))}), hit


def test_draws_are_those_of_a_plain_bootstrap():
    hit = np.random.default_rng(0).random(120) < 0.7
    numbers = np.stack([hit, np.ones(120)], axis=1).astype(float)
    (found,) = draws([numbers], accuracy().summary, "t", resamples=500, seed=3)
    low, high = stream_key(3, "bootstrap", "t")
    generator = np.random.Generator(np.random.Philox(key=low | high << 32))
    plain = hit[generator.integers(120, size=(500, 120))].mean(1)
    np.testing.assert_allclose(found, plain, rtol=1e-15)
    assert interval(found) == pytest.approx(tuple(np.percentile(plain, (2.5, 97.5))))


def test_many_examples_are_drawn_part_by_part(monkeypatch):
    numbers = np.random.default_rng(0).random((300, 2))
    (whole,) = draws([numbers], accuracy().summary, "t", resamples=40, seed=0)
    monkeypatch.setattr("plait.tasks._bootstrap._HELD", 1000)
    (parts,) = draws([numbers], accuracy().summary, "t", resamples=40, seed=0)
    np.testing.assert_allclose(parts, whole, rtol=1e-14)


def test_intervals_cover_the_truth_as_often_as_they_say():
    """300 draws of a binomial: 95 % ± 4 standard errors of 1.3 %."""
    covered = 0
    for seed in range(300):
        task, _ = right(0.7, 150, seed)
        row = evaluate(Known(), task, bootstrap=300, seed=seed).rows[0]
        covered += row.low <= 0.7 <= row.high
    assert 0.90 <= covered / 300 <= 0.99


def test_all_models_meet_the_same_draws():
    task, _ = right(0.6, 200, 0)
    scores = evaluate({"one": Known(), "two": Known()}, task)
    one, two = (scores.evidence[name, "known", "accuracy"].draws for name in ("one", "two"))
    assert np.array_equal(one, two)
    alone = evaluate(Known(), task).evidence["Known", "known", "accuracy"].draws
    assert np.array_equal(alone, one)


def test_tasks_and_seeds_have_draws_of_their_own():
    task, _ = right(0.6, 200, 0)
    other = evaluate(Known(), task.renamed("other")).evidence["Known", "other", "accuracy"].draws
    first = evaluate(Known(), task).evidence["Known", "known", "accuracy"].draws
    second = evaluate(Known(), task, seed=1).evidence["Known", "known", "accuracy"].draws
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, second)


def test_a_draw_without_a_score_is_left_out_and_no_bootstrap_gives_no_interval():
    numbers = np.array([[1.0, 1.0], [0.0, 0.0]])
    (found,) = draws([numbers], accuracy().summary, "t", resamples=200, seed=0)
    assert 20 < np.isnan(found).sum() < 90  # a quarter of them hold the weightless example alone
    assert interval(found) == (1.0, 1.0)
    assert all(math.isnan(end) for end in interval(np.array([])))
    row = evaluate(Known(), right(0.5, 20, 0)[0], bootstrap=0).rows[0]
    assert math.isnan(row.low)


@pytest.fixture
def pair():
    """The same examples: the second model is wrong on 12 of 300 more."""
    task, hit = right(0.8, 300, 0)
    flipped = np.flatnonzero(hit)[:12]
    worse = task.split("test").columns["input"].clone()
    worse[flipped] = worse[flipped].flip(1)

    class Worse(nn.Module):
        def forward(self, x):
            return worse

    return (
        evaluate(Known(), task, batch_size=300),
        evaluate(Worse(), task, batch_size=300),
        hit,
        worse.numpy().argmax(1) == 1,
    )


def test_differences_are_paired(pair):
    old, new, before, after = pair
    (found,) = compare(new, old)
    assert found.value == pytest.approx(-12 / 300)
    low, high = stream_key(0, "bootstrap", "known")
    drawn = np.random.Generator(np.random.Philox(key=low | high << 32)).integers(300, size=(1000, 300))
    plain = (after[drawn].astype(float) - before[drawn]).mean(1)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(plain, (2.5, 97.5))))
    alone = new.rows[0].high - new.rows[0].low
    assert found.high - found.low < alone / 2
    assert found.high < 0


def test_differences_of_other_seeds_are_drawn_anew(pair):
    old, new, _, _ = pair
    task, _ = right(0.8, 300, 0)
    other = evaluate(Known(), task, seed=5, bootstrap=10)
    assert compare(new, other) == compare(new, old)


def test_regressions_are_worse_by_more_than_is_allowed(pair):
    old, new, _, _ = pair
    (found,) = regressions(new, old, 0.03)
    assert (found.task, found.drop) == ("known", pytest.approx(0.04))
    assert regressions(new, old, 0.05) == []
    assert regressions(old, new, 0) == []
    assert [d.drop for d in regressions(new, read_scores(old.to_json()), 0.03)] == [found.drop]
    assert math.isnan(compare(new, read_scores(old.to_json()))[0].low)
    with pytest.raises(InputError, match="`max_drop` is -1"):
        regressions(new, old, -1)


def test_what_becomes_nan_is_a_regression_and_lower_may_be_better():
    suite = digit_tasks.suite()
    broken = digit_tasks.body()
    with torch.no_grad():
        broken[0].weight[0, 0] = math.nan
    old, new = evaluate(suite.base(), suite), evaluate(broken, suite)
    assert [d.drop for d in regressions(new, old, 1.0)] == [math.inf] * 3
    assert regressions(new, new, 0) == []
    better = dataclasses.replace(old.score("Sequential", "bright"), value=0.0)
    rows = tuple(better if row.task == "bright" else row for row in old)
    (found,) = regressions(old, dataclasses.replace(old, rows=rows), 1e-9)
    assert found.task == "bright"
    assert found.drop == old.score("Sequential", "bright").value


def test_tables_that_can_not_be_compared(pair):
    old, new, _, _ = pair
    shorter = evaluate(Known(), right(0.8, 200, 0)[0])
    others = evaluate(Known(), right(0.8, 300, 1)[0])
    two = evaluate({"a": Known(), "b": Known()}, right(0.8, 300, 0)[0])
    lacking = dataclasses.replace(old, rows=(), missing={"known": "its data can't be had"})
    renamed = dataclasses.replace(old, rows=tuple(dataclasses.replace(row, metric="macro F1") for row in old))
    for baseline, message in (
        (shorter, "over 300 examples, the baseline's over 200"),
        (others, "over other examples"),
        (two, "holds 2 models and none is called `Worse`"),
        (lacking, "the baseline has no score on `known`\n  hint: its data can't be had"),
        (renamed, "the new score is accuracy, the baseline's macro F1"),
    ):
        with pytest.raises(InputError) as caught:
            compare(new, baseline)
        assert message in str(caught.value)
    with pytest.raises(InputError, match="the new table has no score on `known`"):
        compare(lacking, old)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"scores": []}', '{"scores": [{"value": 1}]}', "1"])
def test_what_is_no_table_of_scores_is_refused(text):
    with pytest.raises(InputError, match=r"old\.json: these are no scores"):
        read_scores(text, "old.json")

"""Rows that two splits have in common by chance are no copies; those that chance doesn't explain are."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plait.errors import InputError
from plait.tasks import Columns, SquaredError, Task
from plait.tasks._chance import coverage, share_alike
from plait.tasks._leaks import leaks


def split(inputs, labels=None) -> Columns:
    """In memory of its own."""
    held = {"input": torch.tensor(np.asarray(inputs))}
    return Columns(held if labels is None else held | {"label": torch.tensor(np.asarray(labels))})


def refused(train: Columns, test: Columns) -> bool:
    return bool(leaks({"train": train, "test": test}, "label", "task"))


def share_refused(make, times: int = 100) -> float:
    random = np.random.default_rng(0)
    return sum(refused(make(random), make(random, test=True)) for _ in range(times)) / times


@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=2, max_size=9))
def test_rows_alike_are_counted_in_each_column(rows):
    for row, found in zip(rows, share_alike(np.array(rows)), strict=True):
        expected = 1.0
        for column in range(3):
            alike = sum(other[column] == row[column] for other in rows) - 1
            share = (alike + 2 * math.sqrt(alike) + 1 / len(rows)) / (len(rows) - 1)
            expected *= min(1.0, share)
        assert found == pytest.approx(expected)


def test_coverage_is_goods_at_the_samples_own_size_and_grows_with_it():
    counts = np.array([1] * 60 + [2] * 20)
    unseen = (60 - 2 * math.sqrt(100 * 0.6 * 0.4)) / 100
    assert coverage(counts, 100) == pytest.approx(1 - unseen)
    further = coverage(counts, 130)
    pairs = 20 + 2 * math.sqrt(20)
    assert further == pytest.approx(1 - unseen * (99 * 60 / (99 * 60 + 2 * pairs)) ** 30)
    assert coverage(np.ones(10, np.int64), 12) == pytest.approx(1 - (9 * 9 / (9 * 9 + 2)) ** 2)
    assert coverage(np.array([2, 3, 2]), 7) == 1


@pytest.mark.parametrize("kinds", [10, 300])
def test_coverage_is_no_less_than_what_is_seen_of_drawn_rows(kinds):
    """200 rows of kinds equally likely, held against how likely a new one is among 600."""
    random = np.random.default_rng(0)
    found = [
        coverage(np.unique(random.integers(0, kinds, 200), return_counts=True)[1], 600) for _ in range(50)
    ]
    assert np.mean(np.array(found) > 1 - (1 - 1 / kinds) ** 600 - 0.02) >= 0.95


@pytest.mark.parametrize("label", ["none", "a function of inputs", "drawn"])
@pytest.mark.parametrize(
    ("values", "columns", "rows", "test_rows"),
    [(2, 2, 8, 4), (2, 3, 8, 4), (2, 6, 40, 20), (2, 10, 500, 500), (9, 1, 30, 4), (40, 2, 2000, 100)],
)
def test_rows_of_few_values_are_not_refused(values, columns, rows, test_rows, label):
    def make(random, test=False):
        inputs = random.integers(0, values, (test_rows if test else rows, columns))
        drawn = random.integers(0, 2, len(inputs))
        return split(inputs, {"none": None, "drawn": drawn}.get(label, inputs.sum(1) % 2))

    assert share_refused(make) <= 0.01


@pytest.mark.parametrize(("kinds", "rows", "test_rows"), [(20, 500, 100), (500, 2000, 100), (100, 300, 10)])
def test_pictures_of_which_there_are_few_are_not_refused(kinds, rows, test_rows):
    """Their columns say nothing, as all depend on which it is; that they are there several times does."""
    pictures = np.random.default_rng(1).normal(size=(kinds, 64))
    share = share_refused(
        lambda random, test=False: split(pictures[random.integers(0, kinds, test_rows if test else rows)])
    )
    assert share <= 0.05


def test_one_value_that_half_of_the_examples_have_hides_no_copies_of_others():
    numbers = np.where(np.arange(100) % 2, 0, np.random.default_rng(4).normal(size=100))
    for width in (1, 8):
        rows = np.tile(numbers[:, None], width)
        assert refused(split(rows), split(rows[20:80]))


def test_one_value_that_most_examples_have_is_no_copy_of_any():
    def make(random, test=False):
        inputs = random.normal(size=(60 if test else 300, 8))
        return split(np.where(random.random((len(inputs), 1)) < 0.7, 0, inputs))

    assert share_refused(make) == 0


RANDOM = np.random.default_rng(2)
INPUTS, LABELS = RANDOM.normal(size=(90, 4)), RANDOM.integers(0, 3, 90)
#: How often a training set has each of its rows.
OVERSAMPLED = {
    "twice": np.full(90, 2),
    "three times": np.full(90, 3),
    "a class more often": np.where(LABELS == 0, 5, 1),
    "by lot": RANDOM.integers(1, 5, 90),
}


@pytest.mark.parametrize("times", OVERSAMPLED)
@pytest.mark.parametrize("again", [1, 2])
def test_rows_that_are_there_several_times_hide_no_copies(times, again):
    train = split(np.repeat(INPUTS, OVERSAMPLED[times], 0), np.repeat(LABELS, OVERSAMPLED[times]))
    for count in (20, 60):
        test = split(np.tile(INPUTS[:count], (again, 1)), np.tile(LABELS[:count], again))
        assert refused(train, test)
        others = RANDOM.normal(size=(count, 4))
        assert not refused(train, split(np.tile(others, (again, 1)), np.tile(LABELS[:count], again)))


GRID = np.array(list(itertools.product(range(10), range(10))), np.float32)


@pytest.mark.parametrize("again", [1, 5])
@pytest.mark.parametrize("classes", [2, 3, 100])
def test_the_same_inputs_with_other_labels_are_no_copies(classes, again):
    def make(random, test=False):
        inputs = GRID if test else np.tile(GRID, (again, 1))
        return split(inputs, random.integers(0, classes, len(inputs)))

    assert share_refused(make) <= 0.01


@pytest.mark.parametrize("stays", [0.6, 0.85, 0.9])
@pytest.mark.parametrize("classes", [2, 5])
def test_people_who_are_asked_again_and_mostly_say_the_same_are_no_copies(stays, classes):
    """Features that stay, and a state that persists: a panel of two years."""
    random = np.random.default_rng(5)
    for _ in range(20):
        people, first = random.normal(size=(300, 5)), random.integers(0, classes, 300)
        moved = (first + random.integers(1, classes, 300)) % classes
        second = np.where(random.random(300) < stays, first, moved)
        assert not refused(split(people, first), split(people, second))


@pytest.mark.parametrize("size", [50, 300])
def test_copies_of_which_a_few_got_another_label_are_copies(size):
    random = np.random.default_rng(6)
    inputs, labels = random.normal(size=(300, 5)), random.integers(0, 3, 300)
    own = labels[:size].copy()
    own[: size // 50] += 1
    assert refused(split(inputs, labels), split(inputs[:size], own))
    # Two thirds of the test's rows are copies, the others are new.
    new = random.normal(size=(size // 2, 5))
    test = split(np.concatenate([inputs[:size], new]), np.concatenate([own, own[: size // 2]]))
    assert refused(split(inputs, labels), test)


def test_a_function_of_inputs_measured_twice_is_a_copy():
    """Nothing tells it from one: it was seen in training, with its answer."""
    table = np.array(list(itertools.product((0, 1), repeat=8)))
    assert refused(split(table, table.sum(1) % 2), split(table, table.sum(1) % 2))


def test_the_same_inputs_with_the_same_labels_are_copies():
    order = np.random.default_rng(0).permutation(100)
    labels = np.random.default_rng(1).integers(0, 2, 100)
    assert refused(split(GRID, labels), split(GRID[order], labels[order]))
    # One class alone, or no labels, say nothing of inputs.
    assert refused(split(INPUTS, LABELS), split(INPUTS[:30], np.zeros(30, np.int64)))
    assert refused(split(INPUTS, LABELS), split(INPUTS[:30]))
    users = np.arange(300)
    assert refused(split(users, users % 3), split(users[::-1].copy(), users[::-1] % 3))
    assert not refused(split(users, users % 3), split(users[::-1].copy(), (users[::-1] + 1) % 3))


def test_what_was_measured_tells_examples_of_few_inputs_apart():
    random = np.random.default_rng(3)
    inputs, measured = random.integers(0, 3, (60, 2)), random.normal(size=60)
    train = split(inputs, measured)
    assert refused(train, split(inputs[:20], measured[:20]))
    assert not refused(train, split(inputs[:20], measured[:20] + 1))
    with pytest.raises(InputError, match="hold the same numbers: 20 of 20 examples are in both"):
        Task("t", {"train": train, "test": split(inputs[:20], measured[:20])}, SquaredError())


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_truth_table_may_be_trained_and_measured_on(bits):
    table = np.array(list(itertools.product((0, 1), repeat=bits)))
    assert not refused(split(table, table.sum(1) % 2), split(table, table.sum(1) % 2))

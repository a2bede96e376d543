"""Metrics: sums over examples make the score, so any split into batches and any resample gives it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score
from sklearn.metrics import mean_squared_error as sklearn_error

from plait.tasks import (
    IGNORED,
    accuracy,
    bits_per_byte,
    macro_f1,
    mean_squared_error,
    perplexity,
)

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, count: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(count, classes, generator=generator)
    return outputs, torch.randint(0, classes, (count,), generator=generator)


def score(metric, outputs, batch) -> float:
    return float(metric.summary(metric.numbers(outputs, batch).numpy().sum(0)))


@given(SEEDS, st.integers(1, 30), st.integers(2, 5))
def test_accuracy_is_sklearns(seed, count, classes):
    outputs, labels = drawn(seed, count, classes)
    wanted = accuracy_score(labels, outputs.argmax(1))
    assert score(accuracy(), outputs, {"label": labels}) == pytest.approx(wanted)


@given(SEEDS, st.integers(1, 30), st.integers(2, 5))
def test_macro_f1_is_sklearns(seed, count, classes):
    outputs, labels = drawn(seed, count, classes)
    wanted = f1_score(labels, outputs.argmax(1), average="macro", labels=range(classes), zero_division=0.0)
    assert score(macro_f1(classes), outputs, {"label": labels}) == pytest.approx(wanted)


@given(SEEDS, st.integers(1, 30))
def test_mean_squared_error_is_sklearns(seed, count):
    outputs, _ = drawn(seed, count, 1)
    labels, _ = drawn(seed + 1, count, 1)
    wanted = sklearn_error(labels, outputs)
    assert score(mean_squared_error(), outputs, {"label": labels}) == pytest.approx(wanted, rel=1e-5)


@given(SEEDS, st.integers(2, 20), st.data())
def test_parts_add_up_to_the_whole(seed, count, data):
    outputs, labels = drawn(seed, count, 3)
    cut = data.draw(st.integers(1, count - 1))
    metric = macro_f1(3)
    whole = metric.numbers(outputs, {"label": labels})
    parts = [
        metric.numbers(outputs[part], {"label": labels[part]}) for part in (slice(cut), slice(cut, None))
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_many_resamples_are_scored_at_once():
    sums = np.array([[3.0, 4.0], [1.0, 4.0]])
    assert accuracy().summary(sums).tolist() == [0.75, 0.25]


def test_a_model_that_knows_nothing_needs_eight_bits_for_a_byte():
    logits, labels = torch.zeros(2, 9, 256), torch.randint(0, 256, (2, 9))
    assert score(bits_per_byte(), logits, {"labels": labels}) == pytest.approx(8.0)
    assert score(perplexity(), logits, {"labels": labels}) == pytest.approx(256.0, rel=1e-5)


def test_bits_per_byte_count_bytes_and_not_tokens():
    logits, labels = torch.zeros(1, 5, 16), torch.zeros(1, 5, dtype=torch.int64)
    batch = {"labels": labels, "bytes": torch.tensor([8])}
    assert score(bits_per_byte(), logits, batch) == pytest.approx(4 * math.log2(16) / 8)


def test_ignored_tokens_count_in_no_score():
    logits = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, 2, 3, 4, 5, 6]])
    ignored = torch.tensor([[1, 2, 3, 4, IGNORED, IGNORED]])
    assert score(perplexity(), logits, {"labels": ignored}) == pytest.approx(
        score(perplexity(), logits[:, :4], {"labels": labels[:, :4]})
    )


def test_which_way_is_better_is_said():
    assert accuracy().higher_is_better
    assert macro_f1(2).higher_is_better
    for metric in (mean_squared_error(), bits_per_byte(), perplexity()):
        assert not metric.higher_is_better

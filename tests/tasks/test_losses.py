"""Losses: for each example a value and a weight, equal to PyTorch's own losses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from plait.errors import InputError
from plait.tasks import IGNORED, CrossEntropy, NextToken, SquaredError

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(SEEDS, st.integers(1, 8), st.integers(1, 6), st.sampled_from([0.0, 0.1]))
def test_cross_entropy_is_pytorchs(seed, count, classes, smoothing):
    logits = drawn(seed, count, classes)
    labels = torch.arange(count) % classes
    values, weights = CrossEntropy(label_smoothing=smoothing)(logits, {"label": labels})
    torch.testing.assert_close(
        values.sum() / weights.sum(), F.cross_entropy(logits, labels, label_smoothing=smoothing)
    )


@given(SEEDS)
def test_a_class_of_no_probability_changes_no_cross_entropy(seed):
    """So heads of unequal size can be stacked; label smoothing would spread mass over such a class."""
    logits, batch = drawn(seed, 5, 3), {"label": torch.tensor([0, 1, 2, 0, 1])}
    padded = F.pad(logits, (0, 2), value=float("-inf"))
    assert CrossEntropy().pads_classes
    assert not CrossEntropy(label_smoothing=0.1).pads_classes
    torch.testing.assert_close(CrossEntropy()(padded, batch)[0], CrossEntropy()(logits, batch)[0])


@given(SEEDS, st.sampled_from([(4,), (4, 3)]))
def test_squared_error_is_pytorchs(seed, shape):
    outputs, labels = drawn(seed, *shape), drawn(seed + 1, *shape)
    values, weights = SquaredError()(outputs, {"label": labels})
    assert values.shape == weights.shape == (4,)
    torch.testing.assert_close(values.sum() / weights.sum(), F.mse_loss(outputs, labels))


def test_squared_errors_of_one_output_do_not_spread_over_labels():
    """`(n, 1)` against `(n,)` would broadcast to `(n, n)`."""
    values, _ = SquaredError()(torch.tensor([[1.0], [5.0]]), {"label": torch.tensor([1.0, 2.0])})
    assert values.tolist() == [0.0, 9.0]


@pytest.mark.parametrize(
    ("outputs", "labels", "message"),
    [
        ((4, 3), (4,), "gives outputs of size 3 for labels of size 1"),
        ((4, 3), (4, 1), "gives outputs of size 3 for labels of size 1"),
        ((4,), (4, 2), "gives outputs of size 1 for labels of size 2"),
        ((4, 3, 2), (4, 2, 3), "gives outputs of size 3 × 2 for labels of size 2 × 3"),
        ((4, 6), (4, 2, 3), "gives outputs of size 6 for labels of size 2 × 3"),
        ((1, 4), (4,), r"outputs of shape \(1, 4\) for 4 examples"),
        ((), (4,), r"outputs of shape \(\) for 4 examples"),
    ],
)
def test_squared_errors_of_other_numbers_than_labels_are_refused(outputs, labels, message):
    with pytest.raises(InputError, match=message):
        SquaredError()(torch.zeros(outputs), {"label": torch.zeros(labels)})


def test_dimensions_of_one_make_no_difference_to_squared_errors():
    outputs, labels = drawn(1, 4, 1, 3), drawn(2, 4, 3, 1)
    values, _ = SquaredError()(outputs, {"label": labels})
    torch.testing.assert_close(values, (outputs[:, 0] - labels[..., 0]).square().mean(1))


@given(SEEDS, st.integers(1, 4), st.integers(2, 9))
def test_next_token_is_cross_entropy_of_shifted_tokens(seed, count, length):
    logits = drawn(seed, count, length, 7)
    labels = torch.randint(0, 7, (count, length), generator=torch.Generator().manual_seed(seed))
    labels[:, 1::3] = IGNORED
    values, weights = NextToken()(logits, {"labels": labels})
    shifted = labels[:, 1:]
    wanted = F.cross_entropy(logits[:, :-1].reshape(-1, 7), shifted.reshape(-1), reduction="sum")
    torch.testing.assert_close(values.sum(), wanted)
    assert weights.tolist() == (shifted != IGNORED).sum(1).tolist()


def test_what_is_ignored_has_no_gradient():
    logits = drawn(0, 1, 3, 4).requires_grad_()
    labels = torch.tensor([[0, IGNORED, 2]])
    NextToken()(logits, {"labels": labels})[0].sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 0].abs().sum() == 0
    assert logits.grad[0, 1].abs().sum() > 0
    assert logits.grad[0, 2].abs().sum() == 0


@pytest.mark.parametrize("loss", [CrossEntropy(), NextToken()])
def test_short_types_are_summed_in_float32(loss):
    shape = (2, 5, 9) if isinstance(loss, NextToken) else (2, 9)
    labels = torch.zeros(shape[:-1], dtype=torch.int64)
    values, _ = loss(drawn(0, *shape).to(torch.bfloat16), {loss.label: labels})
    assert values.dtype == torch.float32


def test_a_transformers_output_is_taken_by_its_logits():
    logits, batch = drawn(0, 2, 3), {"label": torch.tensor([0, 1])}
    wanted = CrossEntropy()(logits, batch)[0]
    for outputs in (SimpleNamespace(logits=logits), {"logits": logits}):
        assert torch.equal(CrossEntropy()(outputs, batch)[0], wanted)


def test_what_has_no_logits_is_told():
    with pytest.raises(TypeError, match="no tensor and has no logits"):
        CrossEntropy()(3, {"label": torch.tensor([0])})

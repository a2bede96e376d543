"""Dropout that depends on a member's key, the call and the coordinates alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from plait.fleet._dropout import dropout, keep_mask, step_key


def key(seed: int = 0, step: int = 0, micro_batch: int = 0) -> Tensor:
    return torch.tensor(step_key(seed, step, micro_batch), dtype=torch.int32)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_masks_drop_the_share_that_they_should(p):
    """A million entries: within 5 standard deviations of a binomial, and so are all rows and columns."""
    mask = keep_mask(key(1), 0, (1000, 1000), p)
    deviation = math.sqrt(p * (1 - p))
    assert abs(float(mask.double().mean()) - (1 - p)) < 5 * deviation / 1000
    for dim in (0, 1):
        shares = mask.double().mean(dim)
        assert float((shares - (1 - p)).abs().max()) < 5.5 * deviation / math.sqrt(1000)
        assert float(shares.std()) == pytest.approx(deviation / math.sqrt(1000), rel=0.15)


def test_neighbours_calls_steps_and_members_are_independent():
    """Products of signs of 400 × 400 masks: their mean is within 5 standard deviations of 0."""

    def signs(seed: int = 0, step: int = 0, micro_batch: int = 0, call: int = 0) -> Tensor:
        return keep_mask(key(seed, step, micro_batch), call, (400, 400), 0.5).double() * 2 - 1

    first = signs()
    others = [signs(seed=1), signs(step=1), signs(micro_batch=1), signs(call=1)]
    others += [first.roll(1, 0), first.roll(1, 1), first.roll((1, 1), (0, 1)), first.T]
    for other in others:
        shared = torch.ones_like(first, dtype=torch.bool)
        if torch.equal(other, first.T):  # the diagonal is its own mirror image
            shared.fill_diagonal_(False)
        assert abs(float((first * other)[shared].mean())) < 5 / 400


@given(
    small=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    more=st.lists(st.integers(0, 5), min_size=4, max_size=4),
    call=st.integers(0, 9),
    seed=st.integers(0, 2**40),
)
def test_padding_changes_no_mask(small, more, call, seed):
    large = [size + extra for size, extra in zip(small, more, strict=False)]
    whole = keep_mask(key(seed), call, tuple(large), 0.3)
    part = keep_mask(key(seed), call, tuple(small), 0.3)
    assert torch.equal(whole[tuple(slice(size) for size in small)], part)


def test_p_of_zero_keeps_all_and_nearly_one_drops_nearly_all():
    assert keep_mask(key(), 0, (100, 100), 0.0).all()
    assert keep_mask(key(), 0, (100, 100), 1 - 1e-6).sum() < 3


def test_members_under_vmap_have_the_masks_that_they_have_alone():
    keys = torch.stack([key(seed) for seed in range(5)])
    x = torch.randn(5, 7, 6, generator=torch.Generator().manual_seed(0))

    def twice(own: Tensor, x: Tensor) -> Tensor:
        with dropout(own):
            return F.dropout(F.dropout(x, 0.4, True) * 2, 0.2, True)

    stacked = torch.func.vmap(twice)(keys, x)
    assert torch.equal(stacked, torch.stack([twice(own, each) for own, each in zip(keys, x, strict=True)]))
    assert not torch.equal(stacked[0] == 0, stacked[1] == 0)


def test_gradients_under_vmap_are_those_of_the_member_alone():
    keys = torch.stack([key(seed) for seed in range(3)])
    weights = torch.randn(3, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = torch.randn(9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def loss(weight: Tensor, own: Tensor) -> Tensor:
        with dropout(own):
            return F.dropout(torch.tanh(x @ weight), 0.5, True).square().sum()

    stacked = torch.func.vmap(torch.func.grad(loss))(weights, keys)
    for k in range(3):
        alone = weights[k].clone().requires_grad_()
        loss(alone, keys[k]).backward()
        torch.testing.assert_close(stacked[k], alone.grad, rtol=1e-12, atol=1e-14)


def test_what_stays_is_scaled_and_what_is_dropped_is_zero_even_beside_infinity():
    x = torch.full((50, 50), 3.0)
    x[0] = math.inf
    with dropout(key(3)) as mode:
        out = F.dropout(x, 0.25, True)
    mask = keep_mask(key(3), 0, (50, 50), 0.25)
    assert torch.equal(out == 0, ~mask)
    torch.testing.assert_close(out[1:][mask[1:]], torch.full_like(out[1:][mask[1:]], 4.0))
    assert mode.calls == 1


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Dropout(0.5), (6, 8)),
        (nn.Dropout1d(0.5), (6, 8, 5)),
        (nn.Dropout2d(0.5), (6, 8, 5, 3)),
        (nn.Dropout3d(0.5), (6, 8, 5, 3, 2)),
    ],
)
def test_modules_drop_entries_or_whole_channels(module, shape):
    x = torch.ones(shape)
    with dropout(key(2)):
        out = module.train()(x)
    assert set(out.unique().tolist()) == {0.0, 2.0}
    if len(shape) > 2:
        channels = out.reshape(*shape[:2], -1)
        assert torch.equal(channels.min(-1).values, channels.max(-1).values)
        assert channels[..., 0].unique().numel() == 2
    with dropout(key(2)) as mode:
        assert torch.equal(module.eval()(x), x)
    assert mode.calls == 0


def test_calls_are_counted_and_differ():
    x = torch.ones(40, 40)
    with dropout(key()) as mode:
        first, second = F.dropout(x, 0.5, True), F.dropout(x, 0.5, True)
        assert torch.equal(F.dropout(x, 0.0, True), x)
        assert torch.equal(F.dropout(x, 1.0, True), x * 0)
    assert mode.calls == 2
    assert not torch.equal(first, second)


def heads(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(1, 5)),
    longer=st.integers(0, 4),
    mask=st.sampled_from(["none", "bool", "float", "causal"]),
    scale=st.sampled_from([None, 0.3]),
)
def test_attention_spelt_out_is_pytorchs(sizes, longer, mask, scale):
    batch, count, length, width = sizes
    keys = length if mask == "causal" else length + longer
    q, k, v = (
        heads(batch, count, length, width, seed=1),
        *(heads(batch, count, keys, width, seed=seed) for seed in (2, 3)),
    )
    given_mask = None
    if mask == "bool":
        given_mask = heads(batch, 1, length, keys, seed=4) > -0.5
        given_mask[..., 0] = True
    elif mask == "float":
        given_mask = heads(length, keys, seed=4)
    settings = {"attn_mask": given_mask, "is_causal": mask == "causal", "scale": scale}
    wanted = F.scaled_dot_product_attention(q, k, v, **settings)
    with dropout(key(), plain_attention=True) as mode:
        found = F.scaled_dot_product_attention(q, k, v, **settings)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)
    assert mode.calls == 0


def test_attention_of_grouped_queries_and_of_one_sequence_is_pytorchs():
    q, k, v = heads(2, 6, 5, 4, seed=1), heads(2, 2, 5, 4, seed=2), heads(2, 2, 5, 4, seed=3)
    wanted = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    with dropout(key(), plain_attention=True):
        found = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        single = F.scaled_dot_product_attention(q[0, 0], k[0, 0], v[0, 0])
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(
        single, F.scaled_dot_product_attention(q[0, 0], k[0, 0], v[0, 0]), rtol=1e-12, atol=1e-13
    )


def test_attention_drops_shares_after_the_softmax():
    q, k, v = (heads(2, 3, 5, 4, seed=seed) for seed in (1, 2, 3))
    with dropout(key(7)) as mode:
        found = F.scaled_dot_product_attention(q, k, v, dropout_p=0.4)
    shares = torch.softmax(q @ k.transpose(-2, -1) / 2, -1)
    mask = keep_mask(key(7), 0, (2, 3, 5, 5), 0.4)
    torch.testing.assert_close(found, (shares * mask / 0.6) @ v, rtol=1e-12, atol=1e-13)
    assert mode.calls == 1
    with dropout(key(7)):
        positional = F.scaled_dot_product_attention(q, k, v, None, 0.4)
    assert torch.equal(positional, found)


def test_attention_with_dropout_under_vmap_is_the_members_alone():
    keys = torch.stack([key(seed) for seed in range(3)])
    q, k, v = (heads(3, 2, 2, 5, 4, seed=seed) for seed in (1, 2, 3))

    def attend(own: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with dropout(own, plain_attention=True):
            return F.scaled_dot_product_attention(q, k, v, dropout_p=0.3, is_causal=True)

    stacked = torch.func.vmap(attend)(keys, q, k, v)
    for member in range(3):
        alone = attend(keys[member], q[member], k[member], v[member])
        torch.testing.assert_close(stacked[member], alone, rtol=1e-12, atol=1e-14)


def test_keys_are_32_bit_and_differ():
    keys = [step_key(seed, step, micro) for seed in range(20) for step in range(50) for micro in range(2)]
    assert len(set(keys)) == len(keys)
    assert min(keys) >= -(2**31)
    assert max(keys) < 2**31
    assert abs(np.mean(keys)) < 5 * 2**32 / math.sqrt(12 * len(keys))

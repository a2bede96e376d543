"""Low-rank products are right, and a row's bits do not depend on its neighbours."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.numerics._outer import add_squares, low_rank_product


@settings(deadline=None)  # the first example waits for the compiler
@given(st.integers(0, 9), st.integers(1, 5), st.sampled_from([0, 1, 7, 2047, 2050]), st.integers(0, 99))
def test_any_rows_alone_have_the_same_bits(rows: int, rank: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(rows, rank, generator=generator)
    right = torch.randn(rank, columns, generator=generator)
    whole = low_rank_product(left, right)
    exact = left.double() @ right.double()
    # `rank` roundings of the products and as many of the sums
    bound = 2 * rank * torch.finfo(torch.float32).eps * (left.double().abs() @ right.double().abs())
    assert bool(((whole.double() - exact).abs() <= bound).all())
    for low in range(rows):
        assert torch.equal(low_rank_product(left[low : low + 2], right), whole[low : low + 2])


def test_float64_stays_float64_and_other_types_are_refused() -> None:
    left, right = torch.randn(3, 2, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    torch.testing.assert_close(low_rank_product(left, right), left @ right, rtol=1e-14, atol=1e-14)
    with pytest.raises(ValueError, match="float32 or float64"):
        low_rank_product(left.bfloat16(), right.bfloat16())


def test_squares_are_summed_by_row_and_by_column() -> None:
    block = torch.randn(5, 7)
    by_row, by_column = torch.ones(5, dtype=torch.float64), torch.zeros(7, dtype=torch.float64)
    add_squares(block, by_row, by_column)
    torch.testing.assert_close(by_row, 1 + block.double().square().sum(1))
    torch.testing.assert_close(by_column, block.double().square().sum(0))

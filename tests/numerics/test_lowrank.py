"""Low-rank factors are the truncated singular value decomposition, the same every time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.numerics._lowrank import low_rank


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 14), st.integers(0, 99))
def test_the_error_is_the_tail_of_the_singular_values(rows: int, columns: int, rank: int, seed: int) -> None:
    matrix = torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    a, b = low_rank(matrix, rank)
    kept = min(rank, rows, columns)
    assert a.shape == (kept, columns)
    assert b.shape == (rows, kept)
    tail = (
        torch.linalg.svdvals(matrix)[kept:].square().sum().sqrt() if min(rows, columns) else torch.zeros(())
    )
    torch.testing.assert_close(
        torch.linalg.norm(matrix - b @ a).double(), tail.double(), rtol=1e-9, atol=1e-12
    )


def test_signs_and_shares_are_fixed() -> None:
    matrix = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    a, b = low_rank(matrix, 6)
    assert bool((b.gather(0, b.abs().argmax(0, keepdim=True)) > 0).all())
    torch.testing.assert_close(a.norm(dim=1), b.norm(dim=0))
    torch.testing.assert_close(a.norm(dim=1) ** 2, torch.linalg.svdvals(matrix))


def test_a_zero_matrix_has_zero_factors() -> None:
    a, b = low_rank(torch.zeros(4, 3, dtype=torch.bfloat16), 2)
    assert a.dtype == b.dtype == torch.float32
    assert torch.equal(b @ a, torch.zeros(4, 3))


def test_a_sketch_of_a_large_matrix_is_nearly_the_best_and_repeats() -> None:
    generator = torch.Generator().manual_seed(0)
    # a slow decay, as task vectors have it: the hard case for a sketch
    matrix = torch.randn(1100, 1024, generator=generator) @ torch.diag(torch.arange(1, 1025.0).pow(-0.5))
    a, b = low_rank(matrix, 8)
    best = torch.linalg.svdvals(matrix)[8:].square().sum().sqrt()
    assert torch.linalg.norm(matrix - b @ a) <= best * 1.0005
    again = low_rank(matrix, 8)
    assert torch.equal(again[0], a)
    assert torch.equal(again[1], b)


def test_what_is_no_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="rank of at least 1"):
        low_rank(torch.zeros(3), 1)
    with pytest.raises(ValueError, match="rank of at least 1"):
        low_rank(torch.zeros(3, 3), 0)

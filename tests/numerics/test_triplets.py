"""Leading triplets are the truncated decomposition without zeros; polar factors are isometries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.numerics import leading_triplets, polar

sizes = st.integers(0, 12)


def random(rows: int, cols: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, cols, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def near(found: torch.Tensor, expected: torch.Tensor, rounding: float = 1e-9) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=rounding)


@settings(deadline=None)
@given(rows=sizes, cols=sizes, inner=sizes, rank=sizes, seed=st.integers(0, 99))
def test_leading_triplets_are_the_best_of_their_rank(rows, cols, inner, rank, seed):
    matrix = random(rows, inner, seed) @ random(inner, cols, seed + 1)
    u, s, v = leading_triplets(matrix, rank, torch.linalg.norm(matrix))
    expected = torch.linalg.svdvals(matrix)
    kept = min(rank, rows, cols, inner)
    assert u.shape == (rows, kept)
    assert v.shape == (cols, kept)
    near(s, expected[:kept])
    near(u.T @ u, torch.eye(kept))
    near(v.T @ v, torch.eye(kept))
    near(matrix @ v, u * s)


@pytest.mark.parametrize("smallest", [1.0, 1e-2, 1e-4, 1e-7, 1e-12])
@pytest.mark.parametrize("shape", [(40, 20), (20, 40), (30, 30)])
def test_small_singular_values_are_as_exact_as_large_ones(smallest, shape):
    """Where squares would lose them, the matrix itself is decomposed."""
    r = min(shape)
    sizes = torch.logspace(0, np.log10(smallest), r, dtype=torch.float64)
    matrix = torch.linalg.qr(random(shape[0], r))[0] * sizes @ torch.linalg.qr(random(shape[1], r, 1))[0].T
    u, s, v = leading_triplets(matrix, r // 2, torch.ones(()))
    near(s / sizes[: r // 2], torch.ones(r // 2), 1e-9)
    near(u.T @ u, torch.eye(r // 2))
    near(v.T @ v, torch.eye(r // 2))


def test_what_is_rounding_of_larger_numbers_is_no_direction():
    noise = 1e-14 * random(20, 9)
    for rank in (2, 9):
        assert leading_triplets(noise, rank, torch.tensor(100.0))[1].shape == (0,)
        assert leading_triplets(noise, rank, torch.tensor(1e-14))[1].shape == (rank,)


@settings(deadline=None)
@given(rows=st.integers(1, 12), cols=sizes, inner=st.integers(1, 12), seed=st.integers(0, 99))
def test_the_polar_factor_is_the_partial_isometry_onto_the_same_span(rows, cols, inner, seed):
    cols = min(cols, rows)
    inner = min(inner, cols, rows)
    columns = random(rows, inner, seed) @ random(inner, cols, seed + 1)
    u, s, vt = torch.linalg.svd(columns, full_matrices=False)
    if inner and cols and s[inner - 1] < 1e-3 * s[0]:
        return
    near(polar(columns), u[:, :inner] @ vt[:inner], 1e-7)


def test_polar_of_orthonormal_columns_is_themselves():
    columns = torch.linalg.qr(random(9, 4))[0]
    near(polar(columns), columns, 1e-14)
    near(polar(torch.cat([columns, columns], 1)), torch.cat([columns, columns], 1) / np.sqrt(2), 1e-14)
    assert polar(torch.zeros(5, 3, dtype=torch.float64)).equal(torch.zeros(5, 3, dtype=torch.float64))
    assert polar(torch.zeros(5, 0, dtype=torch.float64)).shape == (5, 0)

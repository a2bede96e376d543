"""TSV-M, Iso-C and Iso-CTS against their formulas, and what follows from them exactly."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import spectral
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spectral import by_matrix
from states import NAMES, close, merge, tensors, wide

from plait.errors import InputError

RULES = {"tsv": spectral.tsv, "iso_c": spectral.iso_c, "iso_cts": spectral.iso_cts}
#: What factors of matrices that are badly conditioned lose.
ROUNDING = 1e-9

every = pytest.mark.parametrize("method", RULES)
counts = pytest.mark.parametrize("count", [1, 2, 3, 4])
doubles = pytest.mark.parametrize("dtype", [torch.float64], indirect=True)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def change(base, models, method, **options):
    """The merged task vector of one matrix, in float64."""
    given = {NAMES[i]: tensors({"w": base + d}) for i, d in enumerate(models)}
    return wide(merge(given, base=tensors({"w": base}), method=method, **options))["w"] - base


def near(found, expected, rounding=1e-10):
    np.testing.assert_allclose(found, expected, rtol=0, atol=rounding * max(np.abs(expected).max(), 1.0))


@every
@counts
def test_a_method_is_its_formula_on_every_shape(base, models, method, count):
    chosen = {name: models[name] for name in NAMES[:count]}
    out = merge(chosen, base=base, method=method, lambda_=0.7)
    close(out, by_matrix(RULES[method], wide(base), list(map(wide, chosen.values())), 0.7), rounding=ROUNDING)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 9), cols=st.integers(1, 9), count=st.integers(1, 5), rank=st.integers(0, 9),
    seed=st.integers(0, 999), method=st.sampled_from(sorted(RULES)),
)  # fmt: skip
def test_a_method_is_its_formula_on_any_matrices(rows, cols, count, rank, seed, method):
    """Of any rank, zero included; the sum of task vectors of a low rank lacks directions too."""
    rng = np.random.default_rng(seed)
    base = rng.integers(-4, 5, (rows, cols)) / 4
    deltas = [
        rng.integers(-9, 10, (rows, rank)) @ rng.integers(-9, 10, (rank, cols)) / 8 for _ in range(count)
    ]
    models = [{"w": base + d} for d in deltas]
    out = merge(
        {NAMES[i] if i < 4 else "e": tensors(m) for i, m in enumerate(models)},
        base=tensors({"w": base}),
        method=method,
    )
    close(out, by_matrix(RULES[method], {"w": base}, models), rounding=1e-7)


@every
def test_convolutions_are_matrices_and_experts_are_stacks_of_them(method):
    shapes = {
        "conv.weight": (5, 2, 3, 3), "conv1d.weight": (6, 2, 3), "mlp.experts.down_proj": (3, 6, 5),
        "block_sparse_moe.input_linear.weight": (2, 4, 7), "norm": (7,), "cls_token": (1, 1, 8),
        "gate": (1, 8),
    }  # fmt: skip
    base, *models = ({k: random(*s, seed=i) for k, s in shapes.items()} for i in range(4))
    out = wide(merge(dict(zip("abc", map(tensors, models), strict=True)), base=tensors(base), method=method))
    for key, (count, rows, cols) in {
        "conv.weight": (1, 5, 18), "conv1d.weight": (1, 6, 6), "mlp.experts.down_proj": (3, 6, 5),
        "block_sparse_moe.input_linear.weight": (2, 4, 7),
    }.items():  # fmt: skip
        stacks = [(model[key] - base[key]).reshape(count, rows, cols) for model in models]
        expected = np.stack([RULES[method](deltas) for deltas in zip(*stacks, strict=True)])
        near(out[key] - base[key], expected.reshape(shapes[key]))
    for key in ("norm", "cls_token", "gate"):
        near(out[key], sum(model[key] for model in models) / 3)


@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (8, 8)])
def test_tsv_of_one_model_is_the_model(dtype, shape):
    base, model = random(*shape), random(*shape, seed=1)
    given, start = tensors({"w": model}, dtype), tensors({"w": base}, dtype)
    close(merge([given], base=start, method="tsv"), wide(given))


@doubles
@pytest.mark.parametrize("count", [2, 3])
def test_tsv_of_tasks_in_orthogonal_spaces_is_their_sum(dtype, count):
    rows, cols, k = 7, 9, 7 // count
    u, v = np.linalg.qr(random(rows, rows))[0], np.linalg.qr(random(cols, cols))[0]
    deltas = [
        u[:, i * k : i * k + k] @ np.diag(np.arange(1.0, k + 1)) @ v[:, i * k : i * k + k].T
        for i in range(count)
    ]
    near(change(random(rows, cols, seed=2), deltas, "tsv"), sum(deltas))


@doubles
def test_tsv_of_models_that_are_the_same_or_scaled_is_their_top_part(dtype):
    delta = random(6, 8, seed=1)
    u, s, vt = np.linalg.svd(delta)
    expected = u[:, :3] @ np.diag(s[:3]) @ vt[:3]
    near(change(random(6, 8), [delta, delta], "tsv"), expected)
    near(change(random(6, 8), [delta, 3 * delta], "tsv"), 2 * expected, 1e-8)
    # a model that is the base brings no directions
    near(change(random(6, 8), [delta, 0 * delta], "tsv"), expected)


@doubles
def test_tsv_of_more_models_than_rows_is_the_mean(dtype):
    deltas = [random(3, 8, seed=1 + i) for i in range(4)]
    near(change(random(3, 8), deltas, "tsv"), sum(deltas) / 4)


@doubles
@pytest.mark.parametrize("shape", [(9, 5), (5, 9)])
def test_iso_c_has_equal_singular_values_and_the_nuclear_norm_of_the_sum(dtype, shape):
    deltas = [random(*shape, seed=1 + i) for i in range(3)]
    found = change(random(*shape), deltas, "iso_c")
    sizes, whole = (np.linalg.svd(x, compute_uv=False) for x in (found, sum(deltas)))
    near(sizes, np.full(5, whole.mean()))
    near(found @ sum(deltas).T, sum(deltas) @ found.T)  # the singular vectors are the sum's
    near(change(random(*shape), [3 * d for d in deltas], "iso_c"), 3 * found)
    near(change(random(*shape), deltas, "iso_c", lambda_=-0.5), -0.5 * found)


@doubles
def test_iso_of_a_sum_that_lacks_directions_is_isotropic_in_those_it_has(dtype):
    delta = random(7, 2) @ random(2, 9)
    for method in ("iso_c", "iso_cts"):
        found = change(np.zeros((7, 9)), [delta, 2 * delta], method)
        sizes = np.linalg.svd(found, compute_uv=False)
        near(sizes, np.repeat([3 * np.linalg.svd(delta, compute_uv=False)[:2].mean(), 0], [2, 5]))
        u = np.linalg.svd(delta)[0][:, :2]
        near(u @ u.T @ found, found)
        near(change(random(7, 9), [0 * delta], method), 0 * delta)
        # what cancels leaves rounding, and rounding is no direction
        tenth = np.full((7, 9), 0.1) * random(7, 9)
        near(change(np.zeros((7, 9)), [tenth, 2 * tenth, -3 * tenth], "iso_c"), 0 * delta)


@doubles
def test_iso_cts_without_room_for_tasks_is_iso_c(dtype):
    deltas = [random(6, 9, seed=1 + i) for i in range(3)]
    expected = change(random(6, 9), deltas, "iso_c")
    near(change(random(6, 9), deltas, "iso_cts", common_space_fraction=1.0), expected)
    # s / T = (6 − 5) / 3, rounded
    near(change(random(6, 9), deltas, "iso_cts", common_space_fraction=0.9), expected)


@doubles
@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 0.8])
def test_iso_cts_is_isotropic(dtype, fraction):
    deltas = [random(8, 12, seed=1 + i) for i in range(2)]
    found = change(random(8, 12), deltas, "iso_cts", common_space_fraction=fraction)
    sizes = np.linalg.svd(found, compute_uv=False)
    near(sizes, np.full(8, sizes.mean()))
    near(found, spectral.iso_cts(deltas, fraction), 1e-8)


def test_iso_cts_refuses_more_directions_than_there_are():
    states = [{"w": torch.randn(5, 7, generator=torch.Generator().manual_seed(i))} for i in range(4)]
    with pytest.raises(InputError, match=r"leaves 5 of 5 directions, and 3 models.*would take 6") as error:
        merge(states[1:], base=states[0], method="iso_cts", common_space_fraction=0.0)
    assert "tensor `w`" in str(error.value)
    merge(states[1:], base=states[0], method="iso_cts", common_space_fraction=0.0, matrix=False)
    with pytest.raises(InputError, match="between 0"):
        merge(states[1:], base=states[0], method="iso_cts", common_space_fraction=1.2)


@every
def test_a_matrix_may_be_merged_by_the_mean(base, models, method):
    only = [{"filter": "matrix", "value": False}, {"value": True}]
    chosen = {name: models[name] for name in "ab"}
    out, usual = (merge(chosen, base=base, method=method, **given) for given in ({"matrix": only}, {}))
    for key, value in out.items():
        assert torch.equal(value, usual[key]) == (key != "matrix")
    mean = (wide(chosen["a"])["matrix"] + wide(chosen["b"])["matrix"]) / 2
    close({"matrix": out["matrix"]}, {"matrix": mean})
    averages = by_matrix(lambda deltas: sum(deltas) / 2, wide(base), list(map(wide, chosen.values())))
    close(merge(chosen, base=base, method=method, matrix=False), averages)


@every
def test_the_order_of_models_changes_no_bit(base, models, method):
    out = merge({name: models[name] for name in "abcd"}, base=base, method=method)
    other = merge({name: models[name] for name in "dbca"}, base=base, method=method)
    assert all(torch.equal(out[key], other[key]) for key in out)


@doubles
@pytest.mark.parametrize("method", ["tsv", "iso_c"])
def test_transposed_matrices_give_the_transposed_result(dtype, method):
    deltas = [random(6, 9, seed=1 + i) for i in range(3)]
    there = change(random(6, 9), deltas, method)
    near(change(random(6, 9).T, [d.T for d in deltas], method), there.T, 1e-9)


@every
def test_narrow_types_are_rounded_once(method):
    generator = torch.Generator().manual_seed(0)
    states = [{"w": torch.randn(20, 30, generator=generator).bfloat16()} for _ in range(3)]
    out = merge(states[1:], base=states[0], method=method)["w"]
    exact = by_matrix(RULES[method], wide(states[0]), list(map(wide, states[1:])))["w"]
    assert torch.equal(out, torch.from_numpy(exact).float().bfloat16())


@every
def test_a_base_is_needed(models, method):
    with pytest.raises(InputError, match="needs a base"):
        merge([models["a"]], method=method)
    with pytest.raises(InputError, match="did you mean `matrix`"):
        merge([models["a"]], base=models["b"], method=method, matrx=False)


def test_wide_and_tall_matrices_have_the_same_partial(dtype):
    rule = partial(spectral.iso_cts, fraction=0.4)
    base, *models = (tensors({"w": random(4, 11, seed=i)}, dtype) for i in range(3))
    out = merge(models, base=base, method="iso_cts", common_space_fraction=0.4)
    close(out, by_matrix(rule, wide(base), list(map(wide, models))), rounding=ROUNDING)

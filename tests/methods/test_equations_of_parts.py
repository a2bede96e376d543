"""Sparse task vectors and elected signs against their formulas, written out plainly in float64."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from reference import (
    add,
    between,
    dropped,
    each,
    elect,
    keep_probability,
    magmax,
    task_vectors,
    trim,
    weighted_sum,
    with_l1,
)
from states import NAMES, WEIGHTS, close, merge, tensors, wide

from plait.numerics import uniform

SCOPES = ["row", "tensor", "model"]
TIES = ["keep", "lowest_index"]
SIGNS = ["plus", "minus", "majority"]
ONES = [1.0] * 4


@pytest.fixture(scope="module")
def deltas(base, models):
    """Task vectors for the reference."""
    return task_vectors(wide(base), [wide(models[name]) for name in NAMES])


@pytest.mark.parametrize("density", [1.0, 0.5, 0.2, 1e-3, 0.0])
@pytest.mark.parametrize(("scope", "ties"), product(SCOPES, TIES))
def test_ties_trims_elects_and_averages(base, models, deltas, density, scope, ties):
    out = merge(models, base=base, method="ties", density=density, scope=scope, ties=ties)
    trimmed = [trim(d, density, scope, ties) for d in deltas]
    close(out, add(wide(base), elect(trimmed, ONES)))


@pytest.mark.parametrize("zero_sign", SIGNS)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    "weights", [ONES, WEIGHTS, [-1.0, -1.0, -1.0, -1.0]], ids=["equal", "mixed", "negative"]
)
def test_ties_elects_by_weighted_sums(base, models, deltas, zero_sign, normalize, weights):
    options = {"zero_sign": zero_sign, "normalize": normalize}
    out = merge(
        models, base=base, method="ties", density=0.4, scope="row", weight=weights, lambda_=0.7, **options
    )
    merged = elect([trim(d, 0.4, "row") for d in deltas], weights, **options)
    close(out, add(wide(base), merged, 0.7))


@pytest.mark.parametrize(
    ("rest", "elected"), [([5, 5, -1], 1), ([-5, -5, 1], -1), ([5, 0, -5], -1), ([-900, 1, 1], 1)]
)
@pytest.mark.parametrize("zero_sign", SIGNS)
def test_votes_that_cancel_go_to_the_majority_of_the_whole_model(rest, elected, zero_sign):
    """It counts the signs of sums, whatever their size, and minus wins where it is undecided too."""
    base = tensors({"a": np.zeros(3), "b": np.zeros(3)})
    up = tensors({"a": np.array([3.0, -7.0, 0.0]), "b": np.array(rest, float)})
    down = tensors({"a": np.array([-3.0, 7.0, 0.0]), "b": np.zeros(3)})
    out = merge([up, down], base=base, method="ties", density=1.0, zero_sign=zero_sign)
    sign = {"plus": 1, "minus": -1, "majority": elected}[zero_sign]
    assert out["a"].tolist() == [sign * 3, sign * 7, 0]
    assert out["b"].tolist() == rest


@pytest.mark.parametrize("density", [0.5, 0.2])
def test_ties_rescaled_to_the_l1_norm(base, models, deltas, density):
    options = {"density": density, "scope": "row", "ties": "keep", "rescale": "l1"}
    out = merge(models, base=base, method="ties", **options)
    trimmed = [with_l1(d, trim(d, density, "row")) for d in deltas]
    close(out, add(wide(base), elect(trimmed, ONES)))
    options["rescale"] = "probability"
    out = merge(models, base=base, method="ties", **options)
    close(out, add(wide(base), elect([trim(d, density, "row") for d in deltas], ONES)))


def test_each_model_has_its_own_density(base, models, deltas):
    densities = [0.9, 0.5, 0.3, 0.05]
    for scope in SCOPES:
        out = merge(models, base=base, method="ties", density=densities, scope=scope)
        trimmed = [trim(d, density, scope) for d, density in zip(deltas, densities, strict=True)]
        close(out, add(wide(base), elect(trimmed, ONES)))


TAILS = [(0.2, 0.1), (0.5, 0.2), (0.9, 0.3), (0.0, 0.1), (0.3, 0.0)]


@pytest.mark.parametrize(("density", "gamma"), TAILS)
@pytest.mark.parametrize(("scope", "ties"), product(SCOPES, TIES))
def test_breadcrumbs_drop_both_tails(base, models, deltas, density, gamma, scope, ties):
    options = {"density": density, "gamma": gamma, "scope": scope, "ties": ties}
    kept = [between(d, **options) for d in deltas]
    out = merge(models, base=base, method="breadcrumbs", weight=WEIGHTS, lambda_=0.7, **options)
    close(out, add(wide(base), weighted_sum(kept, WEIGHTS), 0.7))


@pytest.mark.parametrize(("scope", "ties"), product(SCOPES, TIES))
def test_breadcrumbs_ties_elects(base, models, deltas, scope, ties):
    options = {"density": 0.4, "gamma": 0.2, "scope": scope, "ties": ties}
    out = merge(models, base=base, method="breadcrumbs_ties", weight=WEIGHTS, **options)
    close(out, add(wide(base), elect([between(d, **options) for d in deltas], WEIGHTS), 0.4))


def test_breadcrumbs_rescaled_to_the_l1_norm(base, models, deltas):
    out = merge(models, base=base, method="breadcrumbs", rescale="l1", lambda_=1.0)
    close(out, add(wide(base), weighted_sum([with_l1(d, between(d, 0.2, 0.1)) for d in deltas], ONES)))


RESCALES = ["probability", "l1", "none"]


@pytest.mark.parametrize("density", [1.0, 0.5, 0.1, 0.0])
@pytest.mark.parametrize("rescale", RESCALES)
def test_dare_drops_at_random_and_rescales(base, models, deltas, density, rescale):
    shared = {"density": density, "rescale": rescale, "seed": 3}
    kept = [dropped(d, constant(d, density), name, 3, rescale) for d, name in zip(deltas, NAMES, strict=True)]
    out = merge(models, base=base, method="dare_linear", weight=WEIGHTS, lambda_=0.7, **shared)
    close(out, add(wide(base), weighted_sum(kept, WEIGHTS), 0.7))
    out = merge(models, base=base, method="dare_ties", **shared)
    close(out, add(wide(base), elect(kept, ONES)))


@pytest.mark.parametrize(
    ("density", "epsilon"), [(0.7, 0.07), (0.5, 0.4), (0.5, 0.0), (1.0, 0.15), (0.0, 0.15)]
)
@pytest.mark.parametrize("rescale", RESCALES)
def test_della_keeps_by_rank_and_rescales(base, models, deltas, density, epsilon, rescale):
    shared = {"density": density, "epsilon": epsilon, "rescale": rescale, "seed": 3}
    kept = [
        dropped(d, keep_probability(d, density, epsilon), name, 3, rescale)
        for d, name in zip(deltas, NAMES, strict=True)
    ]
    out = merge(models, base=base, method="della_linear", weight=WEIGHTS, lambda_=0.7, **shared)
    close(out, add(wide(base), weighted_sum(kept, WEIGHTS), 0.7))
    out = merge(models, base=base, method="della", **shared)
    # Sums of several 1/q that cancel but for rounding have no sign to check.
    close(out, add(wide(base), elect(kept, ONES)), without=("whole",))


def test_draws_are_those_of_philox():
    """Known answers of Random123's philox4x32-10, for a counter and a key of zeros."""
    words = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    found = uniform((0, 0), 0, 1024)[[0, 256, 512, 768]]
    assert found.tolist() == [(word >> 8) / 2**24 for word in words]


@pytest.fixture(scope="module")
def drawn():
    """What each rank of many rows of nine keeps, `(rows, ranks)`: model, seed, tensor → kept / whole."""
    rng = np.random.default_rng(5)
    value = {key: rng.standard_normal((4000, 9)) for key in ("v", "w")}
    zero = tensors(each(np.zeros_like, value))

    def kept(method, name="a", seed=0, key="w", **options):
        out = wide(merge({name: tensors(value)}, base=zero, method=method, seed=seed, **options))
        return np.take_along_axis(out[key] / value[key], np.abs(value[key]).argsort(1), 1)

    return kept


@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        ("dare_linear", {"density": 0.3}, np.full(9, 0.3)),
        ("della_linear", {"density": 0.5, "epsilon": 0.3}, 0.2 + 0.6 * np.arange(9) / 8),
    ],
)
def test_random_drops_have_their_probability_and_no_bias(drawn, method, options, expected):
    """Six standard errors never happen by chance."""
    found = drawn(method, **options)
    assert np.all(np.abs((found != 0).mean(0) - expected) <= 6 * np.sqrt(expected * (1 - expected) / 4000))
    assert np.all(np.abs(found.mean(0) - 1) <= 6 * np.sqrt((1 / expected - 1) / 4000))


def test_seeds_models_and_tensors_draw_for_themselves(drawn):
    others = [{}, {"seed": 1}, {"name": "b"}, {"key": "v"}]
    masks = [(drawn("dare_linear", density=0.5, **other) != 0).ravel() for other in others]
    assert np.all(np.abs(np.corrcoef(masks) - np.eye(4)) < 6 / np.sqrt(masks[0].size))


def chained(sparsify, consensus="sum", scale=1.0):
    return [{"sparsify": sparsify}, {"consensus": consensus}, {"scale": scale}]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_parts_chained_by_a_recipe(base, models, deltas, count):
    chosen, w = {name: models[name] for name in NAMES[:count]}, WEIGHTS[:count]
    trimmed = [trim(d, 0.3, "row") for d in deltas[:count]]
    weighted = [weighted_sum([d], [factor]) for d, factor in zip(trimmed, w, strict=True)]
    expected = {
        "mean": weighted_sum(trimmed, w, count),
        "sum": weighted_sum(trimmed, w),
        "elected_sign": elect(trimmed, w, normalize=False),
        "largest": each(lambda *d: magmax(d), *weighted),
    }
    keep = {"name": "magnitude", "density": 0.3, "scope": "row"}
    for consensus, merged in expected.items():
        out = merge(chosen, base=base, method=chained(keep, consensus, 0.7), weight=w)
        close(out, add(wide(base), merged, 0.7))
    out = merge(chosen, base=base, method=chained(keep, {"name": "sum", "normalize": True}), weight=w)
    close(out, add(wide(base), weighted_sum(trimmed, w, sum(w))))


def constant(deltas, density):
    return each(lambda d: np.full_like(d, density), deltas)


@pytest.mark.parametrize(
    ("name", "options", "rule"),
    [
        ("none", {}, lambda d, name: d),
        ("magnitude", {}, lambda d, name: d),
        ("magnitude", {"density": 0.3}, lambda d, name: trim(d, 0.3)),
        ("both_tails", {}, lambda d, name: d),
        ("both_tails", {"density": 0.5}, lambda d, name: between(d, 0.5, 0.01, "model", "keep")),
        ("both_tails", {"density": 0.5, "gamma": 0.1}, lambda d, name: between(d, 0.5, 0.1, "model", "keep")),
        ("random", {"density": 0.4}, lambda d, name: dropped(d, constant(d, 0.4), name, rescale="none")),
        (
            "by_rank",
            {"density": 0.4},
            lambda d, name: dropped(d, keep_probability(d, 0.4, 0.07), name, rescale="none"),
        ),
    ],
)
def test_sparsifiers_alone(base, models, deltas, name, options, rule):
    out = merge(models, base=base, method=[{"sparsify": {"name": name, **options}}])
    close(out, add(wide(base), weighted_sum([rule(d, n) for d, n in zip(deltas, NAMES, strict=True)], ONES)))


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("conventions", ["paper", "mergekit"])
@pytest.mark.parametrize(
    "method",
    ["ties", "breadcrumbs", "breadcrumbs_ties", "dare_linear", "dare_ties", "della", "della_linear"],
)
def test_defaults_are_the_papers_or_mergekits(base, models, deltas, method, conventions, count):
    """mergekit's density of 1 drops nothing."""
    paper = conventions == "paper"
    chosen, d = {name: models[name] for name in NAMES[:count]}, deltas[:count]
    named = list(zip(d, NAMES, strict=False))
    kept = {
        "ties": lambda: [trim(v, 0.2) for v in d] if paper else d,
        "bread": lambda: [between(v, 0.2, 0.1) for v in d] if paper else d,
        "dare_": lambda: [dropped(v, constant(v, 0.1), name) for v, name in named] if paper else d,
        "della": lambda: [dropped(v, keep_probability(v, 0.7, 0.07), n) for v, n in named] if paper else d,
    }[method[:5]]()
    zero_sign = "majority" if paper else "plus"
    factor = 0.4 if method.startswith("bread") and paper else 1.0
    if method in ("breadcrumbs", "dare_linear", "della_linear"):
        merged = weighted_sum(kept, ONES[:count])
    else:
        normalize = paper or method in ("ties", "della")
        merged = elect(kept, ONES[:count], normalize=normalize, zero_sign=zero_sign)
    weights = {} if paper else {"weight": ONES[:count]}
    out = merge(chosen, base=base, method=method, conventions=conventions, **weights)
    close(out, add(wide(base), merged, factor))


@pytest.mark.parametrize("method", ["ties", "breadcrumbs_ties"])
def test_mergekit_ranks_within_tensors_and_keeps_the_count(base, models, deltas, method):
    options = {"density": 0.6, "weight": WEIGHTS, "conventions": "mergekit"}
    if method == "ties":
        kept = [trim(d, 0.6, "tensor", "lowest_index") for d in deltas]
    else:
        kept = [between(d, 0.6, 0.01, "tensor", "lowest_index") for d in deltas]
    merged = elect(kept, WEIGHTS, normalize=method == "ties", zero_sign="plus")
    close(merge(models, base=base, method=method, **options), add(wide(base), merged))


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della", "della_linear"])
def test_mergekit_rescales_random_drops_to_the_l1_norm(base, models, deltas, method):
    options = {"density": 0.6, "weight": ONES, "conventions": "mergekit"}
    q = [keep_probability(d, 0.6, 0.15) if "della" in method else constant(d, 0.6) for d in deltas]
    kept = [dropped(d, p, name, 0, "l1") for d, p, name in zip(deltas, q, NAMES, strict=True)]
    if method.endswith("linear"):
        merged = weighted_sum(kept, ONES)
    else:
        merged = elect(kept, ONES, normalize=method == "della", zero_sign="plus")
    close(merge(models, base=base, method=method, **options), add(wide(base), merged))


@pytest.mark.parametrize(
    "method", ["ties", "dare_ties", "della", "breadcrumbs", "sce", "magmax", "task_arithmetic"]
)
def test_equal_models_leave_the_base(base, method):
    out = merge({"a": base, "b": base}, base=base, method=method)
    for key, value in base.items():
        assert torch.equal(out[key], value)

"""Averages, geometry and selection against their formulas, written out plainly in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import (
    add,
    arcee_fusion,
    each,
    karcher,
    magmax,
    model_stock,
    multislerp,
    norm,
    nuslerp,
    sce,
    slerp,
    task_vectors,
    weighted_sum,
)
from states import NAMES, WEIGHTS, close, merge, tensors, wide

from plait.errors import InputError

counts = pytest.mark.parametrize("count", [1, 2, 4])
doubles = pytest.mark.parametrize("dtype", [torch.float64], indirect=True)


def first(models, count):
    """The first models, as they are given and for the reference."""
    chosen = {name: models[name] for name in NAMES[:count]}
    return chosen, [wide(model) for model in chosen.values()]


@counts
@pytest.mark.parametrize("normalize", [True, False])
def test_linear_is_the_weighted_mean_or_sum(models, count, normalize):
    chosen, x = first(models, count)
    w = WEIGHTS[:count]
    out = merge(chosen, method="linear", weight=w, normalize=normalize)
    close(out, weighted_sum(x, w, sum(w) if normalize else 1))


def test_linear_refuses_weights_that_cancel(models):
    with pytest.raises(InputError, match="add up to zero"):
        merge(first(models, 2)[0], method="linear", weight=[1.0, -1.0])
    out = merge(first(models, 2)[0], method="linear", weight=[1.0, -1.0], normalize=False)
    close(out, weighted_sum(first(models, 2)[1], [1, -1]))


@counts
@pytest.mark.parametrize("method", ["model_soup", "sma", "linear"])
def test_soup_and_sma_are_the_mean(models, method, count):
    chosen, x = first(models, count)
    close(merge(chosen, method=method), weighted_sum(x, [1] * count, count))


@counts
def test_wma_weighs_by_place(models, count):
    chosen, x = first(models, count)
    close(merge(chosen, method="wma"), weighted_sum(x, range(1, count + 1), sum(range(1, count + 1))))


@counts
@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0, None])
def test_ema_weighs_the_newest_by_alpha(models, count, alpha):
    chosen, x = first(models, count)
    a = 0.2 if alpha is None else alpha
    shares = [(1 - a) ** (count - 1), *(a * (1 - a) ** (count - i) for i in range(2, count + 1))]
    out = merge(chosen, method="ema", **({} if alpha is None else {"alpha": alpha}))
    close(out, weighted_sum(x, shares))


def test_the_order_of_models_is_theirs_and_not_their_names(base, models):
    for method, shares in (("ema", [0.64, 0.16, 0.2]), ("wma", [1 / 6, 2 / 6, 3 / 6])):
        out = merge({name: models[name] for name in "cab"}, method=method)
        close(out, weighted_sum([wide(models[name]) for name in "cab"], shares))
    out = merge({name: models[name] for name in "dcba"}, base=base, method="magmax")
    deltas = task_vectors(wide(base), [wide(models[name]) for name in "dcba"])
    close(out, add(wide(base), each(lambda *d: magmax(d), *deltas), 0.5))


def test_passthrough_scales_one_model(models):
    close(merge([models["b"]], method="passthrough", scale=[2.0]), weighted_sum([wide(models["b"])], [2]))
    close(merge([models["b"]], method="passthrough"), wide(models["b"]))


@counts
@pytest.mark.parametrize(
    ("options", "factor"),
    [({}, 1.0), ({"lambda_": 0.7}, 0.7), ({"normalize": True}, None), ({"lambda_": 0.0}, 0.0)],
)
def test_task_arithmetic_adds_and_negates(base, models, count, options, factor):
    chosen, x = first(models, count)
    w = WEIGHTS[:count]
    out = merge(chosen, base=base, method="task_arithmetic", weight=w, **options)
    merged = weighted_sum(task_vectors(wide(base), x), w)
    close(out, add(wide(base), merged, 1 / sum(w) if factor is None else factor))


def test_task_arithmetic_does_not_divide_by_weights_that_cancel(base, models):
    chosen, x = first(models, 2)
    out = merge(chosen, base=base, method="task_arithmetic", weight=[2.0, -2.0], normalize=True)
    close(out, add(wide(base), weighted_sum(task_vectors(wide(base), x), [2, -2])))


@counts
@pytest.mark.parametrize(
    ("options", "weights", "factor"),
    [({}, [1] * 4, 0.5), ({"lambda_": 1.0, "weight": WEIGHTS}, WEIGHTS, 1.0)],
)
def test_magmax_takes_the_largest_and_the_later_of_equals(base, models, count, options, weights, factor):
    chosen, x = first(models, count)
    options = {key: value[:count] if key == "weight" else value for key, value in options.items()}
    out = merge(chosen, base=base, method="magmax", **options)
    deltas = zip(task_vectors(wide(base), x), weights[:count], strict=True)
    weighted = [weighted_sum([d], [w]) for d, w in deltas]
    close(out, add(wide(base), each(lambda *d: magmax(d), *weighted), factor))


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 1.5, -0.2])
@pytest.mark.parametrize("turned", [1.0, -1.0, 0.2], ids=["near", "opposite", "far"])
def test_slerp_follows_the_great_circle(base, models, t, turned):
    other = {
        key: turned * value + (turned == 0.2) * base[key].flip(-1) if value.dim() else value
        for key, value in models["a"].items()
    }
    out = merge([other], base=base, method="slerp", t=t)
    close(out, each(lambda a, b: slerp(t, a, b), wide(base), wide(other)))


@doubles
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("cos", [0.99949, 0.99951, 1.0])
def test_slerp_is_straight_where_the_cosine_passes_a_bound(dtype, cos, sign):
    a, b = np.array([2.0, 0.0]), 3 * np.array([sign * cos, np.sqrt(1 - cos**2)])
    out = merge([tensors({"w": b})], base=tensors({"w": a}), method="slerp", t=0.3)
    close(out, {"w": slerp(0.3, a, b)})
    straight = 0.7 * a + 0.3 * b
    assert np.allclose(out["w"], straight, rtol=0, atol=1e-12) == (cos > 0.9995)


@doubles
def test_slerp_normalises_nothing_as_short_as_1e_8(dtype):
    a, b = 1e-9 * np.array([2.0, 0.0]), 1e-9 * np.array([3.0, 3.0])
    out = merge([tensors({"w": b})], base=tensors({"w": a}), method="slerp", t=0.3)
    close(out, {"w": np.sin(0.35 * np.pi) * a + np.sin(0.15 * np.pi) * b})


@pytest.mark.parametrize("weights", [[1, 1], [0.3, 0.9], [2, -1], [1, -1]], ids=str)
@pytest.mark.parametrize("with_base", [True, False], ids=["deltas", "weights"])
@pytest.mark.parametrize(
    ("options", "axis"),
    [
        ({}, None),
        ({"nuslerp_row_wise": True}, None),
        ({"nuslerp_flatten": False}, -1),
        ({"nuslerp_flatten": False, "nuslerp_row_wise": True}, 0),
    ],
    ids=["whole", "still_whole", "rows", "columns"],
)
def test_nuslerp_follows_the_great_circle(base, models, weights, with_base, options, axis):
    chosen, x = first(models, 2)
    given = base if with_base else None
    out = merge(chosen, base=given, method="nuslerp", weight=weights, **options)
    b = wide(base) if with_base else each(np.zeros_like, x[0])
    close(out, add(b, each(lambda p, q: nuslerp(p, q, weights, axis), *task_vectors(b, x))))


@doubles
@pytest.mark.parametrize("angle", [1e-3, np.pi - 1e-3])
def test_nuslerp_bends_however_near_the_two_are(dtype, angle):
    a, b = np.array([2.0, 0.0]), np.array([3 * np.cos(angle), 3 * np.sin(angle)])
    out = merge([tensors({"w": a}), tensors({"w": b})], method="nuslerp", weight=[0.7, 0.3])
    expected = (np.sin(0.7 * angle) * a + np.sin(0.3 * angle) * b) / np.sin(angle)
    np.testing.assert_allclose(out["w"], expected, rtol=1e-7, atol=1e-12)


@counts
@pytest.mark.parametrize("with_base", [True, False], ids=["deltas", "weights"])
@pytest.mark.parametrize(
    ("options", "own"),
    [({}, {}), ({"normalize_weights": False}, {"normalize": False}), ({"eps": 1e-6}, {"eps": 1e-6})],
    ids=["mean", "sum", "eps"],
)
def test_multislerp_is_the_original_with_its_tangent_step(base, models, count, with_base, options, own):
    chosen, x = first(models, count)
    w = [3.0, 0.5, 1.0, 0.25][:count]
    out = merge(chosen, base=base if with_base else None, method="multislerp", weight=w, **options)
    b = wide(base) if with_base else each(np.zeros_like, x[0])
    expected = add(b, each(lambda *d: multislerp(d, w, **own), *task_vectors(b, x)))
    # Its direction is rounding, which the original multiplies by up to 1.
    close(out, expected, rounding=1e-9)


def test_multislerp_of_directions_that_cancel(base, models):
    """Of two, the weighted mean is left."""
    keys = ("matrix", "cube", "mirrored")
    b, x = ({key: state[key] for key in keys} for state in (base, models["a"]))
    longer = {key: b[key] - 3 * (x[key] - b[key]) for key in keys}
    expected = wide({key: 2 * b[key] - x[key] for key in keys})
    close(merge([x, longer], base=b, method="multislerp"), expected)
    mirrored = [{"w": model["mirrored"]} for model in models.values()]
    with pytest.raises(InputError, match="cancel"):
        merge(mirrored, base={"w": base["mirrored"]}, method="multislerp")


@counts
@pytest.mark.parametrize(
    "options", [{}, {"max_iter": 1}, {"max_iter": 2}, {"tol": 0.05}, {"tol": 3.0}], ids=str
)
def test_karcher_goes_by_logarithm_and_exponential(models, count, options):
    chosen = first(models, count)[0]
    far = {
        name: {key: value.roll(i) for key, value in model.items()}
        for i, (name, model) in enumerate(chosen.items())
    }
    for states in (chosen, far):
        out = merge(states, method="karcher", **options)
        close(out, each(lambda *v: karcher(v, **options), *map(wide, states.values())))


def test_karcher_of_a_zero_tensor_and_of_opposites(dtype):
    one, zero = tensors({"w": np.array([3.0, 4.0])}, dtype), tensors({"w": np.zeros(2)}, dtype)
    opposite = tensors({"w": np.array([-6.0, -8.0])}, dtype)
    close(merge([one, zero], method="karcher"), {"w": np.array([1.5, 2.0])})
    # between opposites every way is as short as any: it is the first model's, by name
    close(merge({"a": one, "b": opposite}, method="karcher"), {"w": 7.5 * np.array([0.6, 0.8])})
    three = [tensors({"w": np.array(v)}, dtype) for v in ([3.0, 4.0], [-3.0, 4.0], [0.0, -5.0])]
    close(merge(three, method="karcher"), {"w": np.array([0.0, 5.0])})
    across = tensors({"w": np.array([0.0, 2.0])}, dtype)
    middle = np.array([3.0, 4.0]) / 5 + np.array([0.0, 1.0])
    close(merge([one, across], method="karcher"), {"w": 3.5 * middle / norm(middle)})


@doubles
def test_karcher_takes_angles_below_the_tolerance_for_none(dtype):
    x = [np.array([1.0, 0.0])] * 3 + [np.array([np.cos(2.5), np.sin(2.5)])]
    out = merge([tensors({"w": v}) for v in x], method="karcher", tol=0.3, max_iter=1)
    close(out, {"w": karcher(x, 1, 0.3)})
    assert not np.allclose(out["w"], karcher(x, 1, 0.2))


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("conventions", ["paper", "mergekit"])
@pytest.mark.parametrize("filter_wise", [False, True])
def test_model_stock_goes_by_the_angle(base, models, count, conventions, filter_wise):
    chosen, x = first(models, count)
    options = {"conventions": conventions, "filter_wise": filter_wise}
    out = merge(chosen, base=base, method="model_stock", **options)
    eps = {"paper": 1e-12, "mergekit": 1e-6}[conventions]
    close(out, each(lambda b, *v: model_stock(b, v, by_row=filter_wise, eps=eps), wide(base), *x))


@pytest.mark.parametrize("t", [1e-7, 0.05, 10.0])
def test_nearswap_moves_by_t_at_most(base, models, t):
    out = merge([models["a"]], base=base, method="nearswap", t=t)

    def moved(a, b):
        w = np.clip(t / np.maximum(np.abs(a - b), 1e-6), 0, 1)
        return w * b + (1 - w) * a

    close(out, each(moved, wide(base), wide(models["a"])))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spread", [1.0, 20.0])
def test_arcee_fusion_takes_what_is_important(base, models, name, spread):
    """Spread out, most probabilities are below the 1e-8 that is added to them."""
    q, p = ({key: spread * value for key, value in state.items()} for state in (base, models[name]))
    out = merge([p], base=q, method="arcee_fusion")
    # What `faint` has of divergence is rounding alone.
    close(out, each(arcee_fusion, wide(q), wide(p)), without=("faint",))


@counts
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("select_topk", [1.0, 0.6, 0.1, 0.0])
def test_sce_selects_weighs_and_erases(base, models, count, masked, select_topk):
    chosen, x = first(models, count)
    options = {"masked": masked, "select_topk": select_topk}
    out = merge(chosen, base=base, method="sce", **options)
    merged = each(lambda *d: sce(d, **options), *task_vectors(wide(base), x))
    close(out, add(wide(base), merged))


@pytest.mark.parametrize("select_topk", [1.0, 0.5])
def test_sce_in_mergekits_conventions_has_least_weights(base, models, select_topk):
    chosen, x = first(models, 4)
    out = merge(chosen, base=base, method="sce", conventions="mergekit", select_topk=select_topk)
    options = {"select_topk": select_topk, "least_weight": 1e-6, "uniform_below": 1e-6}
    merged = each(lambda *d: sce(d, **options), *task_vectors(wide(base), x))
    close(out, add(wide(base), merged))


@pytest.mark.parametrize(("conventions", "share"), [("paper", 1.0), ("mergekit", 1e-8 / 1e-6)])
def test_sce_keeps_what_a_model_of_little_weight_says_alone(conventions, share):
    """Its weight is far below mergekit's least divisor; the paper's mean is its task vector itself."""
    base = {"w": torch.zeros(2).double()}
    models = [{"w": torch.tensor([1.0, 0.0]).double()}, {"w": torch.tensor([0.0, -1e-4]).double()}]
    out = merge(models, base=base, method="sce", conventions=conventions)["w"]
    assert float(out[1]) == pytest.approx(-1e-4 * share, rel=1e-3)


@pytest.mark.parametrize(("conventions", "step"), [("paper", 2.8e-4), ("mergekit", 2e-4)])
def test_mergekits_sce_weighs_small_steps_equally(conventions, step):
    """Their squares are 1e-7 and less, as those of language models are, but add up to more than 1e-6."""
    models = [tensors({"w": np.full(100, size)}) for size in (3e-4, 1e-4)]
    base = tensors({"w": np.zeros(100)})
    close(merge(models, base=base, method="sce", conventions=conventions), {"w": np.full(100, step)})

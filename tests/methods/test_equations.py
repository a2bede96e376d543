"""Every method against its formula, written out plainly in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import elect, slerp, trim

import plait

SHAPES = {
    "matrix": (7, 13),
    "row": (1, 9),
    "column": (9, 1),
    "vector": (11,),
    "scalar": (),
    "empty": (0, 4),
    "cube": (3, 4, 5),
}
NAMES = ["a", "b", "c"]


def state(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


@pytest.fixture(scope="module")
def base() -> dict[str, torch.Tensor]:
    return state(0)


@pytest.fixture(scope="module")
def models(base: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    return {
        name: {
            key: value + 0.3 * other
            for (key, value), other in zip(base.items(), state(seed).values(), strict=True)
        }
        for seed, name in enumerate(NAMES, 1)
    }


def wide(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().numpy()


def close(found: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(wide(found), expected, rtol=2e-5, atol=2e-6)


def test_linear_is_the_weighted_mean(models):
    out = plait.merge(models, method="linear", weight=[1.0, 2.0, -0.5])
    for key in SHAPES:
        x = [wide(models[name][key]) for name in NAMES]
        close(out[key], (x[0] + 2 * x[1] - 0.5 * x[2]) / 2.5)


def test_soup_is_the_mean(models):
    out = plait.merge(models, method="model_soup")
    for key in SHAPES:
        close(out[key], sum(wide(models[name][key]) for name in NAMES) / 3)


def test_ema_weighs_the_newest_by_alpha(models):
    out = plait.merge(models, method="ema", alpha=0.25)
    for key in SHAPES:
        x = [wide(models[name][key]) for name in NAMES]
        close(out[key], 0.25 * x[2] + 0.75 * (0.25 * x[1] + 0.75 * x[0]))


def test_wma_weighs_by_place(models):
    out = plait.merge(models, method="wma")
    for key in SHAPES:
        x = [wide(models[name][key]) for name in NAMES]
        close(out[key], (x[0] + 2 * x[1] + 3 * x[2]) / 6)


def test_task_arithmetic_adds_and_negates(base, models):
    out = plait.merge(models, base=base, method="task_arithmetic", weight=[0.5, -1.0, 2.0], lambda_=0.7)
    for key in SHAPES:
        b, x = wide(base[key]), [wide(models[name][key]) for name in NAMES]
        close(out[key], b + 0.7 * (0.5 * (x[0] - b) - (x[1] - b) + 2 * (x[2] - b)))


@pytest.mark.parametrize("density", [1.0, 0.5, 0.1])
def test_ties_in_mergekits_conventions(base, models, density):
    out = plait.merge(
        models, base=base, method="ties", density=density, conventions="mergekit", weight=[1.0, 0.5, 2.0]
    )
    for key in SHAPES:
        b = wide(base[key])
        # Magnitudes are ranked as they are computed: in float32.
        deltas = [trim((models[name][key] - base[key]).double().numpy(), density) for name in NAMES]
        weighted = [w * d for w, d in zip([1.0, 0.5, 2.0], deltas, strict=True)]
        close(out[key], b + elect(weighted, [1.0, 0.5, 2.0], normalize=True))


def test_ties_of_the_paper_trims_over_the_whole_model(base, models):
    out = plait.merge(models, base=base, method="ties", density=0.3, zero_sign="plus")
    trimmed = {}
    for name in NAMES:
        flat = np.concatenate([(models[name][k] - base[k]).double().numpy().reshape(-1) for k in SHAPES])
        limit = np.sort(np.abs(flat))[::-1][int(0.3 * flat.size) - 1]
        trimmed[name] = limit
    for key in SHAPES:
        deltas = []
        for name in NAMES:
            d = (models[name][key] - base[key]).double().numpy()
            deltas.append(np.where(np.abs(d) >= trimmed[name], d, 0.0))
        close(out[key], wide(base[key]) + elect(deltas, [1.0] * 3, normalize=True))


def test_magmax_takes_the_largest(base, models):
    out = plait.merge(models, base=base, method="magmax", lambda_=0.5)
    for key in SHAPES:
        deltas = np.stack([(models[name][key] - base[key]).double().numpy() for name in NAMES])
        best = np.take_along_axis(deltas, np.abs(deltas).argmax(0)[None], 0)[0]
        close(out[key], wide(base[key]) + 0.5 * best)


def test_breadcrumbs_drop_both_tails_of_a_tensor(base, models):
    out = plait.merge(
        models, base=base, method="breadcrumbs", density=0.5, gamma=0.2, scope="tensor", lambda_=1.0
    )
    for key in SHAPES:
        total = wide(base[key]).copy()
        for name in NAMES:
            d = (models[name][key] - base[key]).double().numpy()
            flat = d.reshape(-1)
            order = sorted(range(flat.size), key=lambda i, f=flat: (-abs(f[i]), i))
            keep = int(0.5 * flat.size)
            top = min(int(0.2 * flat.size), flat.size - keep)
            kept = np.zeros_like(flat)
            kept[order[top : top + keep]] = flat[order[top : top + keep]]
            total = total + kept.reshape(d.shape)
        close(out[key], total)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_slerp_follows_the_great_circle(base, models, t):
    out = plait.merge([models["a"]], base=base, method="slerp", t=t)
    for key in SHAPES:
        if base[key].numel():
            close(out[key], slerp(t, wide(base[key]), wide(models["a"][key])))


def test_multislerp_is_the_normalised_mean_of_directions(models):
    out = plait.merge(models, method="multislerp", weight=[1.0, 1.0, 2.0])
    for key in SHAPES:
        x = [wide(models[name][key]).reshape(-1) for name in NAMES]
        if not x[0].size:
            continue
        w, n = [0.25, 0.25, 0.5], [np.linalg.norm(v) for v in x]
        m = sum(a * v / (b + 1e-8) for a, v, b in zip(w, x, n, strict=True))
        mean = sum(a * b for a, b in zip(w, n, strict=True))
        close(out[key], (m / np.linalg.norm(m) * mean).reshape(SHAPES[key]))


def test_karcher_of_two_is_the_geodesic_midpoint(models):
    pair = {name: models[name] for name in NAMES[:2]}
    out = plait.merge(pair, method="karcher")
    for key in ("matrix", "cube", "vector"):
        x, y = (wide(models[name][key]) for name in NAMES[:2])
        u, v = x / np.linalg.norm(x), y / np.linalg.norm(y)
        middle = (u + v) / np.linalg.norm(u + v)
        close(out[key], middle * (np.linalg.norm(x) + np.linalg.norm(y)) / 2)


def test_model_stock_goes_by_the_angle(base, models):
    out = plait.merge(models, base=base, method="model_stock")
    for key in ("matrix", "cube", "vector", "row"):
        b = wide(base[key])
        d = [wide(models[name][key]).reshape(-1) - b.reshape(-1) for name in NAMES]
        cos = np.mean(
            [d[i] @ d[j] / np.linalg.norm(d[i]) / np.linalg.norm(d[j]) for i in range(3) for j in range(i)]
        )
        r = 3 * cos / (1 + 2 * cos)
        close(out[key], r * sum(wide(models[name][key]) for name in NAMES) / 3 + (1 - r) * b)


def test_nearswap_moves_by_t_at_most(base, models):
    out = plait.merge([models["a"]], base=base, method="nearswap", t=0.05)
    for key in SHAPES:
        a, b = wide(base[key]), wide(models["a"][key])
        w = np.minimum(0.05 / np.maximum(np.abs(a - b), 1e-6), 1.0)
        close(out[key], w * b + (1 - w) * a)


@pytest.mark.parametrize("top", [1.0, 0.4])
def test_sce_selects_weighs_and_erases(base, models, top):
    out = plait.merge(models, base=base, method="sce", select_topk=top)
    for key in ("matrix", "cube", "vector"):
        d = np.stack([(models[name][key] - base[key]).double().numpy() for name in NAMES])
        if top < 1:
            variance = d.var(0)
            count = int(top * np.count_nonzero(variance))
            limit = np.sort(variance.reshape(-1))[::-1][count - 1]
            d = np.where(variance >= limit, d, 0.0)
        w = (d**2).reshape(3, -1).mean(1)
        w = w / w.sum()
        positive = d.sum(0) >= 0
        agree = np.where(positive, d > 0, d < 0)
        shape = (3,) + (1,) * (d.ndim - 1)
        kept = w.reshape(shape) * agree
        whole = kept.sum(0)
        close(out[key], wide(base[key]) + (kept * d).sum(0) / np.where(whole == 0, 1, whole))


@pytest.mark.parametrize(("conventions", "share"), [("paper", 1.0), ("mergekit", 1e-8 / 1e-6)])
def test_sce_keeps_what_a_model_of_little_weight_says_alone(conventions, share):
    """Its weight is far below mergekit's least divisor; the paper's mean is its task vector itself."""
    base = {"w": torch.zeros(2).double()}
    models = [{"w": torch.tensor([1.0, 0.0]).double()}, {"w": torch.tensor([0.0, -1e-4]).double()}]
    out = plait.merge(models, base=base, method="sce", conventions=conventions)["w"]
    assert float(out[1]) == pytest.approx(-1e-4 * share, rel=1e-3)


def test_passthrough_scales_one_model(models):
    out = plait.merge([models["b"]], method="passthrough", scale=[2.0])
    for key in SHAPES:
        close(out[key], 2 * wide(models["b"][key]))


def test_dare_is_unbiased_over_seeds(base, models):
    total = np.zeros(SHAPES["matrix"])
    for seed in range(200):
        out = plait.merge([models["a"]], base=base, method="dare_linear", density=0.5, seed=seed)
        total += wide(out["matrix"])
    delta = wide(models["a"]["matrix"]) - wide(base["matrix"])
    # The mean of 200 draws has a standard error of |δ|/√200; six of them never happen by chance here.
    assert np.all(
        np.abs(total / 200 - wide(base["matrix"]) - delta) <= 6 * np.abs(delta) / np.sqrt(200) + 1e-5
    )


def test_dare_in_mergekits_conventions_keeps_the_l1_norm(base, models):
    out = plait.merge([models["a"]], base=base, method="dare_linear", density=0.5, conventions="mergekit")
    delta = wide(models["a"]["matrix"]) - wide(base["matrix"])
    assert np.abs(wide(out["matrix"]) - wide(base["matrix"])).sum() == pytest.approx(
        np.abs(delta).sum(), rel=1e-4
    )


def test_della_keeps_large_entries_more_often(base, models):
    kept = np.zeros(SHAPES["matrix"])
    for seed in range(300):
        out = plait.merge(
            [models["a"]], base=base, method="della_linear", density=0.5, epsilon=0.4, seed=seed
        )
        kept += wide(out["matrix"]) != wide(base["matrix"])
    delta = np.abs((models["a"]["matrix"] - base["matrix"]).double().numpy())
    ranks = delta.argsort(1).argsort(1) / (delta.shape[1] - 1)
    expected = 0.1 + 0.8 * ranks
    error = np.sqrt(expected * (1 - expected) / 300)
    assert np.all(np.abs(kept / 300 - expected) <= 6 * error + 1e-9)


@pytest.mark.parametrize(
    "method", ["ties", "dare_ties", "della", "breadcrumbs", "sce", "magmax", "task_arithmetic"]
)
def test_equal_models_leave_the_base(base, method):
    out = plait.merge({"a": base, "b": base}, base=base, method=method)
    for key in SHAPES:
        assert torch.equal(out[key], base[key])

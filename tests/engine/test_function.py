"""Plain functions as methods: rules stream, anything else gets whole tensors, and mistakes are told."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import plait
from plait.engine import as_method
from plait.errors import InputError, PlaitError
from plait.methods import Method, Order, Settings, Sums
from plait.numerics import absolute, where

State = dict[str, torch.Tensor]
#: Several chunks of the engine's grid, so that what a function sees at once shows.
SHAPES = {"wide": (3, 40_000), "vector": (11,), "scalar": (), "empty": (0, 4)}


def state(seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


@pytest.fixture(scope="module")
def base() -> State:
    return state(0)


@pytest.fixture(scope="module")
def models() -> dict[str, State]:
    return {"a": state(1), "b": state(2)}


def times(factor):
    return lambda models, base: factor * models[0]


def one_number(c):
    return c.models[0].mean()


def branching(c):
    return c.models[0] if c.models[0] > 0 else c.models[1]


def test_a_function_of_models_and_base_that_is_a_rule_streams(base, models):
    assert not as_method(lambda models, base: base + models[0]).whole(Settings({}, {}, 2, 1))
    out = plait.merge(models, base=base, method=lambda models, base: base + 2 * (models[0] - models[1]))
    for key in SHAPES:
        assert torch.equal(out[key], base[key] + 2 * (models["a"][key] - models["b"][key]))


def test_a_function_that_needs_no_base_does_without(models):
    out = plait.merge(models, method=lambda models, base: where(models[0] > 0, models[0], models[1]))
    for key in SHAPES:
        assert torch.equal(out[key], torch.where(models["a"][key] > 0, models["a"][key], models["b"][key]))


def test_any_other_function_sees_whole_tensors_in_their_own_shape(models):
    seen = []

    def unit(models, base):
        seen.append(tuple(models[0].shape))
        return torch.stack(models).sum(0) / models[0].norm()

    out = plait.merge(models, method=unit)
    assert {(3, 40_000), (11,), ()} <= set(seen)
    for key in ("wide", "vector", "scalar"):
        a, b = models["a"][key], models["b"][key]
        torch.testing.assert_close(out[key], (a + b) / a.norm())


@pytest.mark.parametrize("function", [one_number, branching])
def test_a_function_of_a_cell_that_is_no_rule_is_refused_once(base, models, function):
    with pytest.raises(InputError, match=f"`{function.__name__}` is no rule: a rule used") as caught:
        plait.merge(models, base=base, method=function)
    assert str(caught.value).count("is no rule") == 1


def test_a_function_of_a_cell_may_rank(base, models):
    out = plait.merge(models, base=base, method=lambda c: c.rank(0) + 0.0 * c.base)
    order = (models["a"]["wide"] - base["wide"]).abs().argsort(dim=1, stable=True).argsort(dim=1)
    torch.testing.assert_close(out["wide"], order / 39_999)
    assert out["scalar"] == 0.5


def test_a_method_that_ranks_must_say_that_it_needs_rows(base, models):
    silent = Method("silent", "", "", lambda c: c.rank(0), base="required")
    with pytest.raises(PlaitError, match="so its method must be `by_row`"):
        plait.merge(models, base=base, method=silent)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_result_of_another_size_is_refused(base, models, compiled, monkeypatch):
    monkeypatch.setattr("plait.engine._plan.COMPILED_FROM", 0 if compiled else 1 << 40)
    wide = {name: {"wide": tensors["wide"]} for name, tensors in models.items()}
    with pytest.raises(InputError, match=r"gives \[1, 40000\] where \[3, 40000\] is needed"):
        plait.merge(wide, base={"wide": base["wide"]}, method=lambda models, base: models[0][:1])


def test_what_a_function_raises_is_its_fault(models):
    def broken(models, base):
        return torch.stack(models)[17]

    with pytest.raises(InputError, match=r"tensor `\w+`: the method `broken` fails: IndexError"):
        plait.merge(models, method=broken)


def test_what_takes_three_arguments_is_no_method(models):
    with pytest.raises(InputError, match=r"`<lambda>` can't be a merge method"):
        plait.merge(models, method=lambda a, b, c: a)


def test_a_function_is_never_taken_for_unchanged(models, tmp_path):
    options = plait.RunOptions(if_changed=True, overwrite=True)
    for factor in (1.0, 2.0):
        out = tmp_path / "out"
        plait.merge(models, method=times(factor), out=out, options=options)
        found = plait.open(out)["vector"].read()
        assert torch.equal(found, factor * models["a"]["vector"])


@pytest.mark.parametrize("compiled", [False, True])
def test_rules_that_hold_other_values_are_other_rules(base, models, compiled, monkeypatch):
    """Stages are made anew for each tensor, from one piece of code; what they hold must not be mixed up."""

    def stages(settings):
        size = float(settings.numel)
        return [
            *(
                Sums(f"sum{k}", lambda c, k=k: [c.models[k]], lambda sums, _, k=k: {f"sum{k}": sums})
                for k in (0, 1)
            ),
            Sums("scaled", lambda c: [size * absolute(c.base)], lambda sums, _: {"scaled": sums}),
        ]

    def combine(c):
        return 0.0 * c.base + c.stat("sum0")[0] + 2.0 * c.stat("sum1")[0] + c.stat("scaled")[0]

    monkeypatch.setattr("plait.engine._plan.COMPILED_FROM", 0 if compiled else 1 << 40)
    out = plait.merge(models, base=base, method=Method("held", "", "", combine, (), stages, base="required"))
    for key in ("wide", "vector", "scalar"):
        a, b, c = (x[key].double() for x in (models["a"], models["b"], base))
        expected = a.sum() + 2 * b.sum() + c.numel() * c.abs().sum()
        torch.testing.assert_close(out[key], torch.full_like(base[key], expected.item()))


@pytest.mark.parametrize("compiled", [False, True])
def test_stages_over_the_model_pass_over_empty_tensors(base, models, compiled, monkeypatch):
    stages = [
        Order("largest", lambda c: [absolute(c.base)], lambda n, _, __: [[np.int64(1)]], False, "model"),
        Sums("total", lambda c: [c.base], lambda sums, _: {"total": [sums[0]]}, "model"),
    ]
    method = Method(
        "stats",
        "",
        "",
        lambda c: 0.0 * c.base + c.stat("largest")[0] + c.stat("total")[0],
        stages=lambda settings: stages,
        base="required",
    )
    monkeypatch.setattr("plait.engine._plan.COMPILED_FROM", 0 if compiled else 1 << 40)
    out = plait.merge(models, base=base, method=method)
    everything = torch.cat([base[key].reshape(-1) for key in SHAPES]).double()
    expected = everything.abs().max() + everything.sum()
    torch.testing.assert_close(out["vector"], torch.full((11,), expected.item()))
    only = {"empty": base["empty"]}
    assert plait.merge({"a": only}, base=dict(only), method=method)["empty"].shape == (0, 4)

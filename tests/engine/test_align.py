"""Which tensors of which models make each output tensor."""

from __future__ import annotations

import pytest
import torch

import plait
from plait.errors import InputError
from plait.recipe import build_recipe


def model(value: float, **others: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((2, 3), float(value)), **others}


def test_a_buffer_of_integers_comes_from_the_base_though_others_lack_it():
    base = model(1, position_ids=torch.arange(3))
    found = plait.merge([model(2), model(4)], base=base, method="task_arithmetic", weight=0.5)
    assert isinstance(found, dict)
    assert found["position_ids"].tolist() == [0, 1, 2]
    assert torch.equal(found["weight"], torch.full((2, 3), 3.0))


@pytest.mark.parametrize("method", ["linear", "ties"])
def test_a_buffer_of_integers_that_the_base_lacks_comes_from_the_first_model_that_has_it(method):
    models = [model(2), model(4, steps=torch.tensor(7)), model(4, steps=torch.tensor(8))]
    base = None if method == "linear" else model(1)
    found = plait.merge(models, base=base, method=method)
    assert isinstance(found, dict)
    assert found["steps"].item() == 7


def test_a_weight_that_one_model_lacks_is_an_error_that_names_it():
    with pytest.raises(InputError, match=r"models\[1\].*`extra` is missing here"):
        plait.merge([model(1, extra=torch.ones(2)), model(2)])


def test_integers_and_floats_under_one_name_are_an_error():
    models = [model(1, x=torch.ones(2)), model(2, x=torch.ones(2, dtype=torch.int8))]
    with pytest.raises(InputError, match=r"`x` has different types: .* has float32, .* has int8"):
        plait.merge(models)


def test_an_unused_base_of_another_shape_is_an_error_too():
    with pytest.raises(InputError, match="different shapes"):
        plait.merge([model(1), model(2)], base={"weight": torch.ones(3, 3)}, method="linear")


def test_what_is_kept_is_copied_from_the_base_or_the_first_that_has_it():
    a = model(1, **{"head.w": torch.ones(3)})
    b = model(3, **{"head.w": torch.zeros(5), "own": torch.ones(1)})
    merged = plait.merge({"a": a, "b": b}, keep=["head.*", "own"])
    assert isinstance(merged, dict)
    assert merged["weight"].unique().tolist() == [2.0]
    assert merged["head.w"].equal(a["head.w"])
    assert merged["own"].equal(b["own"])
    base = model(0, **{"head.w": torch.full((2,), 7.0)})
    recipe = build_recipe({"a": a, "b": b}, base=base, method="ties", keep=("head.*", "own"))
    assert {o.name: (o.how, o.models) for o in plait.build_plan(recipe).outputs} == {
        "weight": ("merge", ("base", "a", "b")),
        "head.w": ("copy", ("base",)),
        "own": ("copy", ("b",)),
    }
    with pytest.raises(InputError, match=r"`head\.w` has different shapes"):
        plait.merge({"a": a, "b": b}, keep="own")

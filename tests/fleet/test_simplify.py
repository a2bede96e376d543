"""A recorded pass with less in it gives the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from plait.fleet._simplify import simplify


def operations(graph: Any) -> list[str]:
    return [str(n.target).removeprefix("aten.") for n in graph.graph.nodes if n.op == "call_function"]


def recorded(function: Any, *given: torch.Tensor) -> tuple[list[str], Any]:
    graph = simplify(make_fx(function)(*given))
    expected, found = function(*given), graph(*given)
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one, other)
    return operations(graph), found


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(3, 4, 5, dtype=torch.float64)


def test_views_of_the_same_shape_products_with_one_and_undone_transposes_go(x):
    def passes(x: torch.Tensor) -> list[torch.Tensor]:
        return [x.expand(3, 4, 5).view(3, 4, 5).mul(1).transpose(1, 2).transpose(2, 1).neg()]

    assert recorded(passes, x)[0] == ["neg.default"]


def test_what_is_computed_twice_is_computed_once_and_what_nobody_takes_never(x):
    def passes(x: torch.Tensor) -> list[torch.Tensor]:
        x.sin()
        return [x.exp() + 1, x.exp() + 1.0, x.exp() * 3]

    assert recorded(passes, x)[0] == ["exp.default", "add.Tensor", "add.Tensor", "mul.Tensor"]


def test_operations_that_give_several_tensors_are_simplified_too(x):
    def passes(x: torch.Tensor) -> list[torch.Tensor]:
        values, places = x.view(3, 4, 5).max(dim=1)
        return [values, places, x.max(dim=1)[0].mul(1).neg()]

    assert recorded(passes, x)[0].count("max.dim") == 1


def test_no_output_is_an_input_or_another_output(x):
    _, found = recorded(lambda x: [x.view(3, 4, 5), x.exp(), x.exp()], x)
    assert len({tensor.data_ptr() for tensor in (x, *found)}) == 4


def test_draws_and_passes_that_change_tensors_stay_as_they_are(x):
    drawn = simplify(make_fx(lambda x: [torch.rand_like(x), torch.rand_like(x)])(x))
    assert operations(drawn).count("rand_like.default") == 2

    def changing(x: torch.Tensor) -> list[torch.Tensor]:
        own = x.clone()
        own.add_(1)
        return [own.view(3, 4, 5)]

    assert "add_.Tensor" in recorded(changing, x)[0]

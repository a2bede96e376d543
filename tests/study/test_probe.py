"""Linear probes: the minimum that they promise, found or told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from plait.errors import InputError, MissingExtra
from plait.study import _extras
from plait.study._probe import probed


def drawn(classes: int, rows: int = 80, width: int = 6) -> tuple[Tensor, Tensor]:
    """Features of unlike scales, one of them far from 0, and labels that they half explain."""
    rng = np.random.default_rng(classes)
    x = rng.normal(size=(rows, width)) * np.logspace(-1, 1, width) + np.eye(width)[0] * 20
    y = (x @ rng.normal(size=(width, classes)) + rng.normal(size=(rows, classes)) * 5).argmax(1)
    y[:classes] = np.arange(classes)
    return torch.from_numpy(x), torch.from_numpy(y)


def gradient(x: Tensor, y: Tensor, ridge: float, layer: torch.nn.Linear) -> float:
    """The largest entry of the gradient of mean loss + ridge / 2 · ‖weights‖² at a layer."""
    own = layer.double()
    loss = F.cross_entropy(own(x), y) + ridge / 2 * own.weight.square().sum()
    return max(g.abs().max().item() for g in torch.autograd.grad(loss, [own.weight, own.bias]))


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("ridge", [1.0, 1e-2, 1e-4])
def test_a_probe_of_classes_lies_where_the_gradient_is_nothing(classes: int, ridge: float) -> None:
    x, y = drawn(classes)
    layer = probed(x, y, classes, ridge, classes=True)
    assert layer.weight.dtype is torch.float32
    assert gradient(x, y, ridge, layer) < 2e-5  # rounded to float32, with features of about 20
    moved = probed(x, y, classes, ridge, classes=True)
    with torch.no_grad():
        moved.weight[0] += 0.1
    assert gradient(x, y, ridge, moved) > 1e-3 * ridge


def test_classes_that_no_example_has_are_never_told() -> None:
    x, y = drawn(3)
    layer = probed(x, y + (y == 2) * 2, 5, 1e-2, classes=True)  # classes 0, 1, and 4
    told = layer(x.float()).softmax(1)
    assert torch.isfinite(layer.bias).all()
    assert told[:, 2:4].max() < 1e-6
    wanted = probed(x, y, 3, 1e-2, classes=True)(x.float()).softmax(1)
    torch.testing.assert_close(told[:, [0, 1, 4]], wanted, atol=1e-4, rtol=0)


def test_examples_of_one_class_are_all_that_class() -> None:
    layer = probed(drawn(2)[0], torch.full((80,), 1), 3, 1e-2, classes=True)
    assert (layer(drawn(2)[0].float()).argmax(1) == 1).all()


def test_features_that_are_not_finite_are_refused() -> None:
    x, y = drawn(2)
    x[3, 2] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        probed(x, y, 2, 1e-2, classes=True)


def test_without_scikit_learn_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_extras, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"plait\[tasks\]"):
        _extras.check_sklearn("fitting linear probes")

"""Models for the tests of equations, in both types that rules are computed in."""

from __future__ import annotations

import pytest
import torch
from states import NAMES, base_state, tensors, tuned_state


@pytest.fixture(scope="module", params=[torch.float64, torch.float32], ids=["f64", "f32"])
def dtype(request) -> torch.dtype:
    return request.param


@pytest.fixture(scope="module")
def base(dtype) -> dict[str, torch.Tensor]:
    return tensors(base_state(), dtype)


@pytest.fixture(scope="module")
def models(dtype) -> dict[str, dict[str, torch.Tensor]]:
    return {name: tensors(tuned_state(name), dtype) for name in NAMES}

"""Models in memory whose tensors have the shapes, ties and zeros that formulas trip over."""

from __future__ import annotations

import numpy as np
import torch
from reference import State

import plait

NAMES = ["a", "b", "c", "d"]
#: Dyadic, so that sums over whole numbers cancel exactly.
WEIGHTS = [1.0, 0.5, -2.0, 0.25]
#: Not in alphabetical order: ranks over the whole model go by name.
SHAPES = {
    "matrix": (6, 11),
    "row": (1, 9),
    "column": (9, 1),
    "one": (1, 1),
    "vector": (11,),
    "scalar": (),
    "empty": (0, 4),
    "no_columns": (4, 0),
    "cube": (3, 4, 5),
    "whole": (6, 9),
    "mirrored": (2, 8),
    "still": (4, 6),
    "idle": (4, 6),
    "zero": (3, 3),
    "faint": (3, 4),
}


def base_state() -> State:
    rng = np.random.default_rng(0)
    state = {key: np.asarray(rng.standard_normal(shape)) for key, shape in SHAPES.items()}
    state["whole"] = rng.integers(-3, 4, SHAPES["whole"]).astype(float)
    state["mirrored"] = np.resize([1.0, 2.0, 3.0, 4.0, 5.0], SHAPES["mirrored"])
    state["zero"][...] = state["faint"][...] = 0.0
    return state


def tuned_state(name: str) -> State:
    """The base, moved: by whole numbers in `whole`, by ±1 that cancel in `mirrored`, hardly in `faint`."""
    place = NAMES.index(name)
    rng = np.random.default_rng(1 + place)
    delta = {key: 0.3 * rng.standard_normal(shape) for key, shape in SHAPES.items()}
    delta["whole"] = rng.integers(-2, 3, SHAPES["whole"])
    delta["mirrored"] = np.resize([1.0, -1.0], SHAPES["mirrored"]) * (-1) ** place
    delta["still"] = delta["zero"] = 0.0
    delta["idle"] *= place > 0
    delta["faint"] *= 1e-8
    return {key: value + delta[key] for key, value in base_state().items()}


def tensors(state: State, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(np.array(value)).to(dtype) for key, value in state.items()}


def wide(state: dict[str, torch.Tensor]) -> State:
    return {key: value.double().numpy() for key, value in state.items()}


def merge(*args: object, **options: object) -> dict[str, torch.Tensor]:
    """On one thread: for tensors this small, others only wait for each other."""
    return plait.merge(*args, **options, options=plait.RunOptions(threads=1))


def close(
    found: dict[str, torch.Tensor], expected: State, *, without: tuple[str, ...] = (), rounding: float = 0.0
) -> None:
    """Equal to within rounding, by the largest number of each tensor."""
    assert found.keys() == expected.keys()
    for key in found.keys() - set(without):
        value = found[key].double().numpy()
        assert value.shape == expected[key].shape
        bound = max(100 * torch.finfo(found[key].dtype).eps, rounding) * np.abs(expected[key]).max(initial=0)
        np.testing.assert_allclose(value, expected[key], rtol=0, atol=bound, err_msg=key)

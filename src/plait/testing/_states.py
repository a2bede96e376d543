"""Small checkpoints in memory, with odd shapes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

State = dict[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]

#: Odd shapes; `twin` has the shape of `matrix`, as the layers of a model have.
SHAPES: Shapes = {
    "matrix": (7, 13),
    "twin": (7, 13),
    "row": (1, 9),
    "column": (9, 1),
    "vector": (11,),
    "scalar": (),
    "empty": (0, 4),
    "cube": (3, 4, 5),
}
#: `wide` and `coarse` span two chunks of the engine's grid, the second one shorter.
WIDE: Shapes = {"wide": (3, 30_011), "coarse": (3, 30_011), **SHAPES}


def state(seed: int, shapes: Shapes = SHAPES) -> State:
    """Normal float32 tensors; those that are called coarse hold few distinct values, so many are equal."""
    generator = torch.Generator().manual_seed(seed)
    found = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {name: (2 * x).round() / 2 if name == "coarse" else x for name, x in found.items()}


def tuned(base: State, seed: int) -> State:
    """A fine-tune: the base plus normal changes; coarse ones where the base is coarse."""
    change = state(seed, {name: tuple(value.shape) for name, value in base.items()})
    return {name: value + (0.5 if name == "coarse" else 0.3) * change[name] for name, value in base.items()}


def zeros_like(tensors: State) -> State:
    """The same shapes, all zeros."""
    return {name: torch.zeros_like(value) for name, value in tensors.items()}


def difference(found: State, expected: State, tolerance: float = 0.0) -> str | None:
    """Where two states differ by more than `tolerance` × the largest magnitude (at least 1), in words."""
    if found.keys() != expected.keys():
        return f"it has the tensors {sorted(found)}, not {sorted(expected)}"
    for name, tensor in found.items():
        other = expected[name]
        if tensor.shape != other.shape or tensor.dtype != other.dtype:
            return f"`{name}` is {_kind(tensor)}, not {_kind(other)}"
        a, b = tensor.double(), other.double()
        gap = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs())
        room = tolerance * max(1.0, float(b.abs().max())) if b.numel() else 0.0
        wrong = ~(gap <= room)
        if bool(wrong.any()):
            count, largest = int(wrong.sum()), float(gap.max())
            return f"`{name}` differs at {count} of {wrong.numel()} elements, by {largest:.3g} at most"
    return None


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"

"""What methods on singular vectors share: an option, the rule of what is no matrix, the memory."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from plait.methods._consensus import total
from plait.methods._parts import LAMBDA
from plait.methods._spec import Cell, Option, Settings
from plait.numerics import Value

MATRIX = Option("matrix", True, "false: merge a tensor by the mean, like one that is no matrix", kind="bool")
OPTIONS = (LAMBDA, MATRIX)

Triplets = tuple[Tensor, Tensor, Tensor]


def mean(c: Cell) -> Value:
    """The rule of tensors that are no matrices, θ₀ + λ · mean_t τ_t."""
    return c.base + c.option("lambda") * (total(c.delta) / float(len(c.delta)))


def wanted(settings: Settings) -> bool:
    """Whether a matrix is to be merged as one."""
    return bool(settings.shared["matrix"])


def sides(settings: Settings) -> tuple[int, int]:
    """Rows and columns of a matrix; (0, 0) of what is none."""
    return (0, 0) if settings.matrices is None else settings.matrices[1:]


def memory(settings: Settings) -> int:
    """A factorisation with its copy and workspace, the vectors that all models share, their polar factors."""
    rows, cols = sides(settings)
    return 3 * rows * cols + 7 * min(rows, cols) ** 2


def joined(parts: Iterable[Triplets]) -> Triplets:
    """Triplets side by side."""
    u, s, v = zip(*parts, strict=True)
    return torch.cat(u, 1), torch.cat(s), torch.cat(v, 1)

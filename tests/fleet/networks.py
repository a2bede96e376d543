"""Small networks of every kind that a fleet stacks, and data for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plait.tasks import Columns, Task


class MLP(nn.Module):
    """Two layers, with dropout if wanted."""

    def __init__(self, inputs: int = 12, width: int = 16, outputs: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.dropout(torch.tanh(self.first(x))))


class CNN(nn.Module):
    """Two convolutions, normalised over the batch if wanted."""

    def __init__(self, *, normalised: bool = False) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(1, 4, 3, padding=1),
            nn.Conv2d(4, 6, 3, padding=1, bias=not normalised),
        )
        self.normal = nn.BatchNorm2d(6) if normalised else nn.Identity()
        self.last = nn.Linear(6 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.tanh(self.first(x)), 2)
        x = F.max_pool2d(self.normal(self.second(x)), 2)
        return self.last(x.flatten(1))


class Attention(nn.Module):
    """One block of a transformer over rows of the input, with dropout in attention if wanted."""

    def __init__(self, *, dropout: float = 0.0, causal: bool = False) -> None:
        super().__init__()
        self.inner, self.normal = nn.Linear(4, 24), nn.LayerNorm(8)
        self.lift, self.last = nn.Linear(4, 8), nn.Linear(8, 3)
        self.p, self.causal = dropout, causal

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.inner(x).view(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4)
        p = self.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=self.causal)
        mixed = mixed.transpose(1, 2).reshape(*x.shape[:2], 8)
        return self.last(self.normal(self.lift(x) + mixed).mean(1))


SHAPES = {MLP: (12,), CNN: (1, 8, 8), Attention: (6, 4)}


def labelled(
    kind: type[nn.Module], count: int, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Columns:
    """Examples of three classes that a network can learn."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, *SHAPES[kind], generator=generator, dtype=dtype)
    weights = torch.randn(x[0].numel(), 3, generator=torch.Generator().manual_seed(9), dtype=dtype)
    return Columns({"input": x, "label": (x.flatten(1) @ weights).argmax(1)})


def task(kind: type[nn.Module], count: int = 70, *, name: str = "task", seed: int = 0, **kwargs: Any) -> Task:
    """A task with a validation split."""
    splits = {"train": labelled(kind, count, seed=seed), "validation": labelled(kind, 40, seed=seed + 100)}
    return Task(name, splits, **kwargs)

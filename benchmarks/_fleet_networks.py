"""The small networks that fleets are timed with: an MLP, a CNN, a ViT and a GPT."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plait.tasks import ByKeywords, Columns, NextToken, Task, perplexity

EXAMPLES = 4096
VOCABULARY, CONTEXT = 256, 64


class MLP(nn.Module):
    """784-64-10."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(784, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.first(x)))


class CNN(nn.Module):
    """16 and 32 channels on 28 × 28."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.last = nn.Linear(32 * 49, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.first(x.view(-1, 1, 28, 28))), 2)
        return self.last(F.max_pool2d(F.relu(self.second(x)), 2).flatten(1))


class Block(nn.Module):
    """A block of a transformer, normalised first."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.normal1, self.inner = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.outer, self.normal2 = nn.Linear(width, width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.heads, self.causal = heads, causal

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        split = self.inner(self.normal1(x)).view(rows, length, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.outer(mixed.transpose(1, 2).reshape(rows, length, width))
        return x + self.down(F.gelu(self.up(self.normal2(x))))


class ViT(nn.Module):
    """Four layers of width 64 over 16 patches of 7 × 7."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.places = nn.Linear(49, 64), nn.Parameter(torch.randn(16, 64) * 0.02)
        self.blocks = nn.Sequential(*[Block(64, 4, causal=False) for _ in range(4)])
        self.normal, self.last = nn.LayerNorm(64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(-1, 4, 7, 4, 7).permute(0, 1, 3, 2, 4).reshape(-1, 16, 49)
        return self.last(self.normal(self.blocks(self.patch(x) + self.places)).mean(1))


class GPT(nn.Module):
    """Four layers of width 64 over 64 bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(VOCABULARY, 64), nn.Embedding(CONTEXT, 64)
        self.blocks = nn.Sequential(*[Block(64, 4, causal=True) for _ in range(4)])
        self.normal, self.last = nn.LayerNorm(64), nn.Linear(64, VOCABULARY, bias=False)

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.words(input_ids) + self.places(places)
        return {"logits": self.last(self.normal(self.blocks(x)))}


NETWORKS: dict[str, type[nn.Module]] = {"MLP": MLP, "CNN": CNN, "ViT": ViT, "GPT": GPT}


def task(name: str) -> Task:
    """Random examples of the kind that a network takes."""
    generator = torch.Generator().manual_seed(0)
    if name == "GPT":
        ids = torch.randint(0, VOCABULARY, (EXAMPLES, CONTEXT), generator=generator)
        columns = Columns({"input_ids": ids, "labels": ids})
        meet = ByKeywords(("input_ids",))
        return Task(name, {"train": columns}, NextToken(), perplexity(), meet=meet)
    x = torch.randn(EXAMPLES, 784, generator=generator)
    return Task(name, {"train": (x, torch.randint(0, 10, (EXAMPLES,), generator=generator))})

"""The small networks that shipped suites start from."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PictureNet(nn.Module):
    """Three convolutions and a linear layer: pictures `(n, 1, 28, 28)` → features `(n, features)`."""

    def __init__(self, features: int = 192) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(1152, features),
            nn.ReLU(),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        return self.layers(pictures)


class ByteGPT(nn.Module):
    """A decoder over bytes (Vaswani & al. 2017, normalised as in GPT-2): `(n, length)` → logits.

    Args:
        width: of the residual stream.
        depth: blocks.
        heads: of attention; divide the width.
        length: the longest sequence.
        vocabulary: how many tokens there are.
    """

    def __init__(
        self, width: int = 128, depth: int = 4, heads: int = 4, length: int = 128, vocabulary: int = 256
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        for block in self.blocks:
            for last in (block.out, block.down):
                nn.init.normal_(last.weight, std=0.02 / (2 * depth) ** 0.5)  # type: ignore[arg-type]

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[-1], device=tokens.device)
        x = self.tokens(tokens) + self.places(places)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class _Block(nn.Module):
    """Attention to what came before, then two layers; each added to the stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.into, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.into(self.before(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = (part.transpose(-3, -2) for part in parts.unbind(-3))
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(-3, -2).flatten(-2))
        return x + self.down(F.gelu(self.up(self.between(x))))

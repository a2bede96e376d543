"""A linear probe: the best linear read-out of fixed features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def probed(features: Tensor, labels: Tensor, outputs: int, ridge: float, *, classes: bool) -> nn.Linear:
    """The minimum of the mean loss + ridge / 2 · ‖weights‖², which is unique; its bias is free.

    Args:
        features: `(n, width)`.
        labels: `(n,)` classes, or `(n,)` or `(n, outputs)` numbers.
        outputs: how many.
        ridge: above 0.
        classes: whether the loss is cross-entropy, else half the squared error.

    Returns:
        a layer of float32.
    """
    x = torch.cat([features.double(), torch.ones(len(features), 1, dtype=torch.float64)], 1)
    held = torch.full((x.shape[1],), ridge, dtype=torch.float64)
    held[-1] = 0
    if classes:
        weights = _logistic(x, labels.long(), outputs, held)
    else:
        wanted = labels.double().reshape(len(x), -1)
        weights = torch.linalg.solve(x.T @ x / len(x) + held.diag(), x.T @ wanted / len(x)).T
    layer = nn.Linear(x.shape[1] - 1, outputs)
    with torch.no_grad():
        layer.weight.copy_(weights[:, :-1])
        layer.bias.copy_(weights[:, -1])
    return layer


def _logistic(x: Tensor, labels: Tensor, outputs: int, held: Tensor) -> Tensor:
    weights = torch.zeros(outputs, x.shape[1], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weights], max_iter=500, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(x @ weights.T, labels) + (held * weights.square()).sum() / 2
        loss.backward()
        return loss

    solver.step(closure)  # pyright: ignore[reportArgumentType]
    return weights.detach()

"""A small suite on scikit-learn's digits, and models for it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from plait.tasks import (
    Columns,
    Metric,
    SquaredError,
    Suite,
    Task,
    accuracy,
    macro_f1,
    mean_squared_error,
)


def body(seed: int = 0) -> nn.Module:
    """Eight features of a picture of a digit; with dropout, which evaluation must not see."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 8))


def head(outputs: int, seed: int = 100) -> nn.Module:
    """A linear head."""
    torch.manual_seed(seed)
    return nn.Linear(8, outputs)


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Pictures `(1797, 64)` in [0, 1] and their digits."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32), y


def task(
    name: str,
    label: Callable[[np.ndarray, np.ndarray], np.ndarray],
    outputs: int,
    metric: Metric | None = None,
    **settings: Any,
) -> Task:
    """A task on all digits: the first 1300 pictures train, the next 200 validate, the rest test."""
    X, y = pictures()
    wanted = label(X, y)
    cuts = {"train": slice(0, 1300), "validation": slice(1300, 1500), "test": slice(1500, None)}
    splits = {
        split: Columns({"input": torch.from_numpy(X[part]), "label": torch.from_numpy(wanted[part])})
        for split, part in cuts.items()
    }
    return Task(name, splits, metric=metric or accuracy(), head=head(outputs), **settings)


def suite(missing: dict[str, str] | None = None) -> Suite:
    """Three tasks: which digit, odd or even (marked as semi-synthetic), and how bright."""
    tasks = (
        task("digit", lambda X, y: y, 10, macro_f1(10)),
        task("odd", lambda X, y: y % 2, 2, semi_synthetic=True),
        task(
            "bright",
            lambda X, y: X.mean(1, keepdims=True),
            1,
            mean_squared_error(),
            loss=SquaredError(),
        ),
    )
    return Suite("digits", tasks, body, missing or {}, "odd and even digits")


def trained(of: Suite, name: str, steps: int = 60) -> nn.Module:
    """A body with its head, trained on a task a little."""
    chosen = of[name]
    network = chosen.with_body(of.base()).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    examples = chosen.split("train")
    for step in range(steps):
        batch = examples.batch(np.arange(step * 64, step * 64 + 64) % len(examples))
        values, weights = chosen.loss(network(batch), batch)
        optimizer.zero_grad()
        (values.sum() / weights.sum()).backward()
        optimizer.step()
    return network


def changed(module: nn.Module, seed: int, scale: float = 0.3) -> nn.Module:
    """A copy with noise on its weights."""
    other = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=scale)
    return other

"""A validation that is no number is the worst there is, and outputs that are none make one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from networks import MLP, task
from torch import nn

from plait.fleet import Fleet, Member
from plait.fleet._validate import better, validate
from plait.tasks import accuracy, evaluate, macro_f1, mean_squared_error, mixture


class Broken(nn.Module):
    """Gives NaN for examples whose first number is positive."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x[:, :1] > 0, math.nan, x[:, :3]) + self.none

    def __init__(self) -> None:
        super().__init__()
        self.none = nn.Parameter(torch.zeros((), dtype=torch.float64))


@pytest.mark.parametrize("metric", [accuracy(), macro_f1(3)])
def test_outputs_that_are_no_numbers_score_none(metric: Any) -> None:
    learned = task(MLP, metric=metric)
    assert math.isnan(validate(Broken(), learned))
    assert math.isnan(validate(Broken(), mixture([learned, task(MLP, name="other", seed=2, metric=metric)])))
    assert not math.isnan(validate(MLP().double(), learned))


def test_of_a_mixtures_heads_each_examples_own_counts() -> None:
    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale

    heads = [nn.Linear(12, 3).double() for _ in range(2)]
    parts = [task(MLP, name=f"t{i}", seed=i, head=head) for i, head in enumerate(heads)]
    del parts[1].splits["validation"]  # type: ignore[attr-defined]
    both = mixture(parts)
    network: Any = both.with_body(Body())
    with torch.no_grad():
        network.head.each[1].weight.fill_(math.nan)
    assert not math.isnan(validate(network, both))
    assert not math.isnan(evaluate(network, both, split="validation").rows[0].value)
    with torch.no_grad():
        network.head.each[0].weight.fill_(math.nan)
    assert math.isnan(validate(network, both))
    assert math.isnan(evaluate(network, both, split="validation").rows[0].value)


@pytest.mark.parametrize(
    ("metric", "good", "bad"), [(accuracy(), 0.9, 0.1), (mean_squared_error(), 0.1, 0.9)]
)
def test_no_number_is_worse_than_any(metric: Any, good: float, bad: float) -> None:
    assert better(math.nan, None, metric)
    assert better(bad, math.nan, metric)
    assert better(good, bad, metric)
    for value, held in ((math.nan, math.nan), (math.nan, bad), (bad, good), (good, good)):
        assert not better(value, held, metric)


def test_a_first_validation_without_a_number_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([math.nan, math.nan, 0.5, 0.4, math.nan])
    monkeypatch.setattr("plait.fleet._aftermath.validate", lambda *_, **__: next(values))
    member = Member(name="a", steps=50, evaluate_every=10, keep="best")
    fleet = Fleet([member], task(MLP), model=lambda: MLP().double()).fit()
    assert fleet.state("a").step == 30
    assert fleet._roster.trainees["a"].best == 0.5
    assert fleet._roster.trainees["a"].waited == 2

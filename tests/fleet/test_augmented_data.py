"""Examples that draw random numbers as they are read: what they draw depends on seed and step alone."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from plait.fleet import Callback, Fleet, Member
from plait.tasks import Task

ROWS = 50


class Augmented(Dataset[Any]):
    """Noise from PyTorch's, NumPy's and Python's generators on each example."""

    def __init__(self, seed: int = 0) -> None:
        self.x = torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(seed)).double()

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        noise = torch.randn(6).double() + np.random.randn() + random.random()
        return self.x[row] + 0.3 * noise, row % 3


class Stop(Callback):
    def on_round(self, fleet: Fleet, validated: object) -> None:
        if fleet.round == 7:
            raise KeyboardInterrupt


def fleet_of(members: range, backend: Any, out: Path | None = None, data_seed: int | None = None) -> Fleet:
    own = [
        Member(
            name=f"m{i}", steps=12, seed=i, data_seed=data_seed, lr=0.02, batch_size=20,
            evaluate_every=4, keep="best",
        )
        for i in members
    ]  # fmt: skip
    task = Task("augmented", {"train": Augmented(), "validation": Augmented(1)})
    return Fleet(own, task, model=lambda: nn.Linear(6, 3).double(), backend=backend, out=out, save_every=5)


def weight(fleet: Fleet, name: str) -> Tensor:
    return fleet.state(name).parameters["weight"]


@pytest.mark.parametrize("backend", ["sequential", "stacked"])
@pytest.mark.parametrize("data_seed", [None, 3])
def test_a_member_learns_the_same_alone_and_beside_others(backend: Any, data_seed: int | None) -> None:
    alone = fleet_of(range(1, 2), "sequential", data_seed=data_seed).fit()
    torch.manual_seed(9)
    beside = fleet_of(range(3), backend, data_seed=data_seed).fit()
    assert torch.allclose(weight(alone, "m1"), weight(beside, "m1"), rtol=0, atol=1e-12)
    told = [[r["value"] for r in f.history if r["member"] == "m1" and "value" in r] for f in (alone, beside)]
    assert len(told[0]) == 3
    assert told[0] == pytest.approx(told[1], abs=1e-12)


@pytest.mark.parametrize("backend", ["sequential", "stacked"])
def test_a_resumed_run_draws_as_one_that_was_not_cut_off(backend: Any, tmp_path: Path) -> None:
    whole = fleet_of(range(3), backend).fit()
    with pytest.raises(KeyboardInterrupt):
        fleet_of(range(3), backend, tmp_path).fit(callbacks=[Stop()])
    resumed = fleet_of(range(3), backend, tmp_path).fit(resume=True)
    assert all(torch.equal(weight(whole, name), weight(resumed, name)) for name in whole)


def test_each_step_draws_anew() -> None:
    seen: list[float] = []

    class Seen(Augmented):
        def __getitem__(self, row: int) -> tuple[Tensor, int]:
            x, label = super().__getitem__(row)
            seen.append(float((x - self.x[row]).sum()))
            return x, label

    own = Member(name="a", steps=10, batch_size=5, seed=1)
    Fleet([own], Task("seen", {"train": Seen()}), model=lambda: nn.Linear(6, 3).double()).fit()
    steps = seen[-50:]
    assert len(set(steps)) == 50

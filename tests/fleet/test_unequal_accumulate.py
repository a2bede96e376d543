"""Adapters of members whose steps have unequal numbers of micro-batches see no example before its time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor, nn

from plait.fleet import Fleet, Member
from plait.fleet._stream import visits
from plait.tasks import Task

STEPS, EXAMPLES = 3, 40


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x)))


class Unreadable(torch.utils.data.Dataset):
    """Examples, some of which raise an error."""

    def __init__(self, x: Tensor, y: Tensor, broken: set[int]) -> None:
        self.x, self.y, self.broken = x, y, broken

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index in self.broken:
            raise OSError(f"example {index} can't be read")
        return self.x[index], self.y[index]


class Noisy(torch.utils.data.Dataset):
    """Two examples, seen through noise."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.arange(6, dtype=torch.float64) * index + torch.randn(6, dtype=torch.float64), index


def members() -> tuple[Member, Member]:
    made = [
        Member(
            name=name,
            task=name,
            steps=STEPS,
            batch_size=4,
            accumulate=accumulate,
            lora=LoraConfig(r=2, target_modules=["a", "b"]),
        )
        for name, accumulate in (("short", 1), ("long", 3))
    ]
    return made[0], made[1]


def data() -> tuple[Tensor, Tensor, set[int]]:
    """Examples, and which of them `short` never comes to."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(EXAMPLES, 6, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (EXAMPLES,), generator=generator)
    never = set(range(2, EXAMPLES)) - {int(i) for i in visits(members()[0], EXAMPLES)}
    assert never
    return x, y, never


def states(chosen: Any, short: Any, long: Any) -> dict[str, dict[str, Tensor]]:
    tasks = [Task("short", {"train": short}), Task("long", {"train": long})]
    torch.manual_seed(0)
    fleet = Fleet(list(chosen), tasks, model=Body().double(), backend="adapters").fit(quiet=True)
    assert set(fleet.status.values()) == {"finished"}
    return {member.name: fleet.state(member.name).parameters for member in chosen}


@pytest.mark.parametrize("kind", ["no numbers", "errors"])
def test_examples_that_a_member_never_comes_to_do_not_matter(kind: str) -> None:
    x, y, never = data()
    rows = sorted(never)
    if kind == "errors":
        short: Any = Unreadable(x, y, never)
    else:
        wrong = x.clone()
        wrong[rows] = torch.nan
        short = (wrong, y)
    alone = states(members()[:1], short, (x, y))["short"]
    beside = states(members(), short, (x, y))["short"]
    for name, weight in alone.items():
        torch.testing.assert_close(beside[name], weight, rtol=0, atol=1e-12)


def test_members_with_one_seed_whose_examples_are_drawn_see_their_own_micro_batches() -> None:
    def trained(chosen: tuple[Member, ...]) -> dict[str, Tensor]:
        torch.manual_seed(0)
        own = [replace(member, task=None) for member in chosen]
        fleet = Fleet(own, Task("one", {"train": Noisy()}), model=Body().double(), backend="adapters")
        return fleet.fit(quiet=True).state("long").parameters

    alone, beside = trained(members()[1:]), trained(members())
    for name, weight in alone.items():
        torch.testing.assert_close(beside[name], weight, rtol=0, atol=1e-12)

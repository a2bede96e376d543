"""A member of a fleet equals the same member trained alone, by a plain loop written here."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import CNN, MLP, Attention, labelled, task
from torch import nn

from plait.errors import InputError
from plait.fleet import Fleet, Member
from plait.fleet._stream import rows
from plait.tasks import Task

STEPS = 200
VARIED = [
    {"lr": 3e-3, "seed": 1, "schedule": "cosine", "warmup": 10, "clip": 0.5},
    {"lr": 1e-3, "seed": 2, "weight_decay": 0.3, "betas": (0.8, 0.99), "batch_size": 7},
    {"lr": 5e-3, "seed": 3, "schedule": "linear", "steps": 150, "eps": 1e-6},
    {"lr": 2e-3, "seed": 4, "schedule": lambda step, steps: 1 / (1 + step), "batch_size": 16},
    {"lr": 2e-3, "seed": 5, "warmup": 0.1},
]


def rate(member: Member, step: int, steps: int) -> float:
    """The learning rate of a step, as its setting is told: a line while it warms up, then the schedule."""
    rising = member.warmup if member.warmup >= 1 else steps * member.warmup
    if step < rising:
        return member.lr * (step + 1) / (rising + 1)
    if callable(member.schedule):
        return member.lr * member.schedule(step, steps)
    past = (step - rising) / (steps - rising)
    if member.schedule == "cosine":
        return member.lr * math.cos(math.pi / 2 * past) ** 2
    return member.lr * (1 - past if member.schedule == "linear" else 1)


def alone(member: Member, learned: Task, make: Callable[[], nn.Module]) -> dict[str, torch.Tensor]:
    """One member, trained as anyone would: shuffled batches, mean loss, PyTorch's optimizer."""
    with torch.random.fork_rng():
        torch.manual_seed(member.seed)
        network = make()
    data = learned.splits["train"]
    decaying = [p for p in network.parameters() if member.decay == "all" or p.dim() > 1]
    others = [p for p in network.parameters() if not (member.decay == "all" or p.dim() > 1)]
    groups = [
        {"params": decaying, "weight_decay": member.weight_decay},
        {"params": others, "weight_decay": 0},
    ]
    if member.optimizer == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, betas=member.betas, eps=member.eps)
    else:
        optimizer = torch.optim.SGD(groups, momentum=member.momentum, nesterov=member.nesterov)
    steps, per_epoch = member.length(len(data)), member.batches(len(data))
    for step in range(steps):
        optimizer.zero_grad()
        losses = []
        for part in range(member.accumulate):
            number = step * member.accumulate + part
            chosen = rows(
                member.seed, number, examples=len(data), size=member.batch_size, per_epoch=per_epoch
            )
            batch = data.batch(chosen)  # type: ignore[arg-type]
            losses.append(
                nn.functional.cross_entropy(network(batch["input"]), batch["label"], reduction="none")
            )
        torch.cat(losses).mean().backward()
        if member.clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), member.clip)
        for group in optimizer.param_groups:
            group["lr"] = rate(member, step, steps)
        optimizer.step()
    return dict(network.state_dict())


def distance(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """The largest difference, relative to the scale of the weights that it is in."""
    return max(
        ((found[name] - wanted[name]).abs().max() / wanted[name].abs().max().clamp(min=1e-2)).item()
        for name in wanted
        if wanted[name].is_floating_point()
    )


def members(**common: object) -> list[Member]:
    return [
        Member(**({"name": f"m{i}", "steps": STEPS} | common | own))  # type: ignore[arg-type]
        for i, own in enumerate(VARIED)
    ]


@pytest.mark.parametrize(
    ("schedule", "warmup", "rates"),
    [
        ("constant", 0, [8, 8, 8, 8, 8, 8]),
        ("constant", 3, [2, 4, 6, 8, 8, 8]),
        ("constant", 0.5, [2, 4, 6, 8, 8, 8]),
        ("linear", 0, [8, 20 / 3, 16 / 3, 4, 8 / 3, 4 / 3]),
        ("linear", 2, [8 / 3, 16 / 3, 8, 6, 4, 2]),
        ("cosine", 0, [8, 4 + 2 * 3**0.5, 6, 4, 2, 4 - 2 * 3**0.5]),
        ("cosine", 2, [8 / 3, 16 / 3, 8, 4 + 8**0.5, 4, 4 - 8**0.5]),
        ("linear", 1 / 3, [8 / 3, 16 / 3, 8, 6, 4, 2]),
        (lambda step, steps: step / steps, 2, [8 / 3, 16 / 3, 8 / 3, 4, 16 / 3, 20 / 3]),
    ],
)
@pytest.mark.parametrize("backend", ["sequential", "stacked"])
def test_learning_rates_rise_and_fall_as_told(
    backend: Any, schedule: Any, warmup: float, rates: list[float]
) -> None:
    member = Member(name="a", steps=6, lr=0.008, schedule=schedule, warmup=warmup)
    make = functools.partial(_double, MLP)
    fleet = Fleet([member], task(MLP), model=make, backend=backend, log_every=1).fit()
    found = [record["lr"] for record in fleet.history if "lr" in record]
    assert found == pytest.approx([rate / 1000 for rate in rates], rel=1e-12)


@pytest.mark.parametrize("backend", ["sequential", "stacked"])
@pytest.mark.parametrize(
    ("kind", "common"),
    [
        (MLP, {}),
        (MLP, {"optimizer": "sgd", "momentum": 0.9, "decay": "matrices"}),
        (MLP, {"optimizer": "sgd", "momentum": 0.8, "nesterov": True}),
        (MLP, {"optimizer": "sgd"}),
        (MLP, {"accumulate": 3}),
        (CNN, {}),
        (Attention, {}),
    ],
)
def test_a_member_equals_training_it_alone(
    backend: str, kind: type[nn.Module], common: dict[str, object]
) -> None:
    learned = task(kind)
    make = functools.partial(_double, kind)
    fleet = Fleet(members(**common), learned, model=make, backend=backend).fit()  # type: ignore[arg-type]
    for member in members(**common):
        wanted = alone(member, learned, make)
        assert distance(dict(fleet[member.name].state_dict()), wanted) < 1e-10
        assert fleet.status[member.name] == "finished"


@pytest.mark.parametrize("backend", ["sequential", "stacked"])
def test_in_float32_it_is_equal_within_rounding(backend: str) -> None:
    splits = {"train": labelled(MLP, 70, dtype=torch.float32)}
    learned = Task("task", splits)
    fleet = Fleet(members(), learned, model=MLP, backend=backend).fit()  # type: ignore[arg-type]
    for member in members():
        assert distance(dict(fleet[member.name].state_dict()), alone(member, learned, MLP)) < 1e-4


def _double(kind: Callable[..., nn.Module], **kwargs: object) -> nn.Module:
    return kind(**kwargs).double()


@pytest.mark.parametrize(
    "make",
    [
        functools.partial(_double, MLP, dropout=0.3),
        functools.partial(_double, Attention, dropout=0.2),
        functools.partial(_double, Attention, dropout=0.2, causal=True),
    ],
)
def test_dropout_drops_the_same_in_a_stack_and_alone(make: functools.partial[nn.Module]) -> None:
    learned = task(make.args[0])
    stacked = Fleet(members(), learned, model=make, backend="stacked").fit()
    for member in members():
        lone = Fleet([member], learned, model=make, backend="sequential").fit()
        wanted = dict(lone[member.name].state_dict())
        assert distance(dict(stacked[member.name].state_dict()), wanted) < 1e-10
        without = alone(member, learned, functools.partial(_double, make.args[0]))
        assert distance(wanted, without) > 1e-3


def test_normalisation_over_batches_keeps_statistics_of_each_member() -> None:
    make = functools.partial(_double, CNN, normalised=True)
    learned = task(CNN, 64)
    own = [Member(name=f"m{i}", steps=STEPS, batch_size=16, seed=i, lr=1e-3 * (i + 1)) for i in range(3)]
    fleet = Fleet(own, learned, model=make, backend="stacked").fit()
    for member in own:
        wanted = alone(member, learned, make)
        found = dict(fleet[member.name].state_dict())
        assert distance(found, wanted) < 1e-10
        assert found["normal.num_batches_tracked"] == wanted["normal.num_batches_tracked"] == STEPS


def test_heads_of_unequal_size_share_a_stack() -> None:
    tasks = []
    for classes in (2, 3, 5):
        x = torch.randn(60, 12, dtype=torch.float64)
        y = torch.arange(60) % classes
        head = nn.Linear(3, classes).double()
        tasks.append(Task(f"of {classes}", {"train": (x, y)}, head=head))
    own = [Member(name=t.name, task=t, steps=STEPS, seed=i, clip=0.3) for i, t in enumerate(tasks)]
    make = functools.partial(_double, MLP)
    stacked = Fleet(own, model=make, backend="stacked").fit()
    lone = Fleet(own, model=make, backend="sequential").fit()
    for t in tasks:
        assert stacked[t.name].head.out_features == t.head.out_features
        assert distance(dict(stacked[t.name].state_dict()), dict(lone[t.name].state_dict())) < 1e-10


class Clamped(torch.autograd.Function):
    """The identity, whose gradient is cut off: half of it depends on what the loss is divided by."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.clamp(-0.01, 0.01)


class ClampedMLP(MLP):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Clamped.apply(super().forward(x))


@pytest.mark.parametrize("backend", ["stacked", "sequential"])
def test_what_looks_at_gradients_sees_those_of_the_mean_loss(backend: Any) -> None:
    learned, make = task(MLP), functools.partial(_double, ClampedMLP)
    own = members(batch_size=16)
    fleet = Fleet(own, learned, model=make, backend=backend).fit()
    for member in own:
        wanted = alone(member, learned, make)
        assert distance(dict(fleet[member.name].state_dict()), wanted) < 1e-10


class Prototypes(nn.Module):
    """A head of one's own: cosines with a direction for each class, and a trained offset for each."""

    rows_are_classes = True

    def __init__(self, classes: int, features: int) -> None:
        super().__init__()
        self.register_buffer("directions", torch.randn(classes, features, dtype=torch.float64))
        self.offsets = nn.Parameter(torch.randn(classes, dtype=torch.float64))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(features, dim=-1, eps=0.1) @ self.directions.T + self.offsets


@pytest.mark.parametrize("backend", ["stacked", "auto"])
def test_heads_that_say_their_rows_are_classes_share_a_stack(backend: Any) -> None:
    torch.manual_seed(0)
    tasks = []
    for classes in (5, 2, 3):
        data = (torch.randn(60, 12, dtype=torch.float64), torch.arange(60) % classes)
        tasks.append(Task(f"of {classes}", {"train": data}, head=Prototypes(classes, 3)))
    own = [Member(name=t.name, task=t, steps=STEPS, seed=i, clip=0.3) for i, t in enumerate(tasks)]
    make = functools.partial(_double, MLP)
    fleet = Fleet(own, model=make, backend=backend).fit()
    lone = Fleet(own, model=make, backend="sequential").fit()
    assert backend == "stacked" or len(fleet.choices) == 1  # one kind of members, timed once
    for t in tasks:
        found, wanted = fleet[t.name].state_dict(), lone[t.name].state_dict()
        assert not torch.equal(found["head.offsets"], t.head.offsets)  # it was trained
        assert torch.equal(found["head.directions"], t.head.directions)
        assert distance(dict(found), dict(wanted)) < 1e-10
    x = torch.randn(30, 12, dtype=torch.float64)
    names = [t.name for t in tasks] * 10
    rows = fleet.outputs(x, member=names)
    for i, t in enumerate(tasks):
        with torch.no_grad():
            wanted_rows = lone[t.name].eval()({"input": x[i::3]})
        assert torch.allclose(rows[i::3][:, : len(t.head.offsets)], wanted_rows, atol=1e-9)


def test_a_head_whose_rows_may_not_be_classes_has_a_stack_of_its_own() -> None:
    tasks = []
    for classes in (5, 2):
        head = Prototypes(classes, 3)
        head.rows_are_classes = False
        data = (torch.randn(20, 12, dtype=torch.float64), torch.arange(20) % classes)
        tasks.append(Task(f"of {classes}", {"train": data}, head=head))
    own = [Member(name=t.name, task=t, steps=3) for t in tasks]
    with pytest.raises(InputError, match="`of 5` and `of 2` can't share a stack"):
        Fleet(own, model=functools.partial(_double, MLP), backend="stacked").fit()


def test_members_that_see_one_batch_share_it() -> None:
    learned = task(MLP)
    own = [Member(name=f"m{i}", steps=STEPS, lr=1e-3 * (i + 1), seed=i, data_seed=7) for i in range(3)]
    make = functools.partial(_double, MLP)
    stacked = Fleet(own, learned, model=make, backend="stacked").fit()
    lone = Fleet(own, learned, model=make, backend="sequential").fit()
    for member in own:
        found, wanted = stacked[member.name].state_dict(), lone[member.name].state_dict()
        assert distance(dict(found), dict(wanted)) < 1e-10


def test_frozen_parameters_stay() -> None:
    def make() -> nn.Module:
        network = _double(MLP)
        network.first.requires_grad_(False)
        return network

    learned = task(MLP)
    stacked = Fleet(members(), learned, model=make, backend="stacked").fit()
    lone = Fleet(members(), learned, model=make, backend="sequential").fit()
    for member in members():
        with torch.random.fork_rng():
            torch.manual_seed(member.seed)
            start = make()
        found = dict(stacked[member.name].state_dict())
        assert torch.equal(found["first.weight"], start.first.weight)
        assert distance(found, dict(lone[member.name].state_dict())) < 1e-10


@settings(max_examples=12)
@given(
    count=st.integers(1, 5),
    batch=st.lists(st.integers(1, 40), min_size=5, max_size=5),
    steps=st.lists(st.integers(1, 9), min_size=5, max_size=5),
    optimizer=st.sampled_from(["adamw", "sgd"]),
    accumulate=st.integers(1, 3),
    dropout=st.sampled_from([0.0, 0.5]),
    drop_last=st.booleans(),
)
def test_any_fleet_equals_its_members_alone(
    count: int,
    batch: list[int],
    steps: list[int],
    optimizer: str,
    accumulate: int,
    dropout: float,
    drop_last: bool,
) -> None:
    learned = task(MLP, 33)
    own = [
        Member(
            name=f"m{i}",
            steps=steps[i],
            batch_size=batch[i],
            optimizer=optimizer,  # type: ignore[arg-type]
            accumulate=accumulate,
            drop_last=drop_last,
            seed=i,
            lr=0.01 * (i + 1),
        )
        for i in range(count)
    ]
    make = functools.partial(_double, MLP, dropout=dropout)
    stacked = Fleet(own, learned, model=make, backend="stacked").fit()
    lone = Fleet(own, learned, model=make, backend="sequential").fit()
    for member in own:
        found, wanted = stacked[member.name].state_dict(), lone[member.name].state_dict()
        assert distance(dict(found), dict(wanted)) < 1e-10

"""Members that learn several tasks at once equal a plain loop over mixed batches, whatever the backend."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import networks
import pytest
import torch
from lora import classes, config
from torch import nn
from torch.nn import functional as F

from plait.errors import InputError
from plait.fleet import Fleet, Member
from plait.fleet._stream import rows
from plait.tasks import Headed, Heads, Task, as_examples, evaluate, mixture

BACKENDS = ("sequential", "stacked")


def tasks() -> dict[str, Task]:
    """Three tasks of one input with heads of unequal size."""
    found = {}
    for number, name in enumerate(("one", "two", "three")):
        with torch.random.fork_rng():
            torch.manual_seed(number)
            head = nn.Linear(8, 3 + number).double()
        splits = {
            split: networks.labelled(networks.MLP, 30 + number, seed=number + s)
            for s, split in ((0, "train"), (50, "test"))
        }
        found[name] = Task(name, splits, head=head)
    return found


class MLP(nn.Module):
    """A body without a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.second(torch.tanh(self.first(x))))


def network() -> nn.Module:
    return MLP().double()


def by_hand(member: Member, learned: list[Task]) -> dict[str, torch.Tensor]:
    """Joint training as anyone would write it: one body, a head for each task, a loop over examples."""
    with torch.random.fork_rng():
        torch.manual_seed(member.seed)
        body = network()
    heads: list[Any] = [copy.deepcopy(t.head) for t in learned]
    parameters = [*body.parameters(), *(p for head in heads for p in head.parameters())]
    optimizer = torch.optim.AdamW(parameters, lr=member.lr, weight_decay=member.weight_decay)
    examples = mixture(learned, [3.0, 1.0]).split("train")
    assert member.steps is not None
    for step in range(member.steps):
        chosen = rows(
            member.seed, step, examples=len(examples), size=16, per_epoch=member.batches(len(examples))
        )
        batch = examples.batch(chosen)  # type: ignore[arg-type]
        losses = [
            F.cross_entropy(heads[int(place)](body(x)).unsqueeze(0), label.unsqueeze(0))
            for x, label, place in zip(batch["input"], batch["label"], batch["task"], strict=True)
        ]
        for p in parameters:
            p.grad = torch.zeros_like(p)
        torch.stack(losses).mean().backward()
        optimizer.step()
    return dict(body.state_dict())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_member_of_a_mixture_equals_joint_training_by_hand(backend: str) -> None:
    known = tasks()
    members = [
        Member(name=f"m{seed}", task={"one": 3.0, "two": 1.0}, steps=40, batch_size=16, lr=0.01, seed=seed)
        for seed in (1, 2, 3)
    ]
    fleet = Fleet(members, known, model=network, backend=backend).fit(quiet=True)  # type: ignore[arg-type]
    for member in members:
        found = fleet[member.name]
        assert isinstance(found, Headed)
        wanted = by_hand(member, [known["one"], known["two"]])
        for name, tensor in found.body.state_dict().items():
            assert torch.allclose(tensor, wanted[name], rtol=0, atol=1e-10)


def test_members_of_one_mixture_share_it_and_differ_from_single_tasks() -> None:
    known = tasks()
    members = [
        Member(name="joint", task=["one", "two", "three"], steps=3),
        Member(name="again", task=["one", "two", "three"], steps=3, seed=1, data_seed=0),
        Member(name="alone", task="one", steps=3),
        Member(name="own", task=[known["one"], "two"], steps=3),
    ]
    fleet = Fleet(members, known, model=network, backend="auto").fit(quiet=True)
    assert fleet._roster.trainees["joint"].task is fleet._roster.trainees["again"].task
    assert fleet._roster.trainees["own"].task.name == "one + two"
    assert set(fleet.status.values()) == {"finished"}


def test_a_joint_member_is_saved_with_a_head_for_each_task(tmp_path: Path) -> None:
    known = tasks()
    fleet = Fleet([Member(name="joint", task=["one", "two"], steps=20)], known, model=network).fit(quiet=True)
    model = fleet["joint"]
    assert isinstance(model, Headed)
    assert isinstance(model.head, Heads)
    (folder,) = fleet.save(tmp_path / "out")
    assert sorted(p.name for p in folder.iterdir()) == ["member.json", "model.safetensors", "one", "two"]
    for name in ("one", "two"):
        loaded = evaluate(model.body, known[name], heads=folder, bootstrap=0).rows[0].value
        assert loaded == evaluate(model, known[name], bootstrap=0).rows[0].value


def test_a_resumed_mixture_is_the_same_fleet_and_another_one_is_not(tmp_path: Path) -> None:
    def fleet(weights: dict[str, float], steps: int) -> Fleet:
        member = Member(name="joint", task=weights, steps=30, batch_size=8)
        return Fleet([member], tasks(), model=network, out=tmp_path / "out", save_every=steps)

    class Stop(Exception):
        pass

    class Stopper:
        def on_save(self, *_: object) -> None:
            raise Stop

    with pytest.raises(Stop):
        fleet({"one": 1, "two": 2}, 10).fit(quiet=True, callbacks=[Stopper()])
    with pytest.raises(InputError, match="other settings"):
        fleet({"one": 2, "two": 1}, 10).fit(quiet=True, resume=True)
    found = fleet({"one": 1, "two": 2}, 10).fit(quiet=True, resume=True).state("joint")
    member = Member(name="joint", task={"one": 1, "two": 2}, steps=30, batch_size=8)
    wanted = Fleet([member], tasks(), model=network).fit(quiet=True).state("joint")
    assert all(torch.equal(found.parameters[name], wanted.parameters[name]) for name in wanted.parameters)


def test_adapters_learn_mixtures_as_peft_alone_does(tmp_path: Path) -> None:
    from lora import bert

    one, two = classes(1, 3, head=True), classes(2, 4, head=True)
    base = bert(drop=0.0)
    states = {}
    for backend in ("adapters", "sequential"):
        members = [
            Member(name="joint", task=[one, two], steps=20, batch_size=6, lora=config(r=2)),
            Member(name="alone", task=two, steps=20, batch_size=6, lora=config(r=3), seed=1),
        ]
        fleet = Fleet(members, model=base, backend=backend).fit(quiet=True)
        states[backend] = [fleet.state(name).parameters for name in fleet]
    for found, wanted in zip(states["adapters"], states["sequential"], strict=True):
        assert found.keys() == wanted.keys()
        for name in wanted:
            assert torch.allclose(found[name], wanted[name], rtol=0, atol=1e-10), name
    folder = fleet.save(tmp_path / "out", base="bert")[0]
    assert {p.name for p in folder.iterdir() if p.is_dir()} == {one.name, two.name}


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (["one", "tow"], "no task `tow`"),
        ({"one": 1, "two": -1}, "weight of `two` is -1"),
        ([], "needs a task"),
        (["one", "one"], "two tasks are called `one`"),
    ],
)
def test_what_cannot_be_mixed_is_told_with_the_member(task: object, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        Fleet([Member(name="joint", task=task, steps=1)], tasks(), model=network)  # type: ignore[arg-type]
    assert "member `joint`" in str(error.value)


def test_a_label_that_a_task_of_a_mixture_has_no_output_for_is_told() -> None:
    one = tasks()["one"]
    rows = [(torch.zeros(12, dtype=torch.float64), label) for label in (0, 1, 2, 0, 7)]
    late = Task("late", {"train": as_examples(Late(rows))}, head=nn.Linear(8, 4).double())
    member = Member(name="joint", task=[one, late], steps=40, batch_size=8)
    with pytest.raises(InputError, match=r"label 7 is out of range: the head has 4 outputs") as caught:
        Fleet([member], model=network).fit(quiet=True)
    assert f"example {30 + 4}" in str(caught.value)


class Late(list):
    """Whose labels can't be looked at without making examples."""

"""What a fleet is told that it can't do: one message each, before the first step."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from networks import CNN, MLP, labelled, task
from torch import nn

from plait.errors import InputError
from plait.fleet import After, Fleet, FleetWarning, Member, SuccessiveHalving, TensorBoard
from plait.tasks import Columns, CrossEntropy, SquaredError, Task, accuracy, mean_squared_error


def refused(message: str, *members: Member, **kwargs: Any) -> None:
    kwargs = {"tasks": task(MLP), "model": lambda: MLP().double()} | kwargs
    with pytest.raises(InputError, match=message):
        Fleet(members, **kwargs).fit()


def test_two_members_of_one_name() -> None:
    refused("two members are called `a`", Member(name="a", steps=1), Member(name="a", steps=2))


def test_no_member() -> None:
    refused("a fleet needs a member")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give `steps` or `epochs`"),
        ({"steps": 1, "epochs": 1}, "give `steps` or `epochs`"),
        ({"steps": 0}, "`steps` is 0"),
        ({"steps": 1, "lr": -1}, "`lr` is -1"),
        ({"steps": 1, "lr": float("nan")}, "`lr` is nan"),
        ({"steps": 1, "betas": (1.0, 0.9)}, "`betas`"),
        ({"steps": 1, "clip": 0}, "`clip` is 0"),
        ({"steps": 1, "batch_size": 0}, "`batch_size` is 0"),
        ({"steps": 1, "optimizer": "adamv"}, "`optimizer` is `adamv`\n  hint: did you mean `adamw`"),
        ({"steps": 1, "schedule": "cosin"}, "did you mean `cosine`"),
        ({"steps": 1, "patience": 2}, "need validations"),
        ({"steps": 1, "batch_size": 2.5}, "`batch_size` is 2.5"),
        ({"steps": 1, "accumulate": 1.5}, "`accumulate` is 1.5"),
        ({"steps": "10"}, "`steps` is '10'"),
        ({"epochs": float("inf")}, "`epochs` is inf"),
        ({"steps": 1, "betas": 0.9}, "`betas` are 0.9"),
        ({"steps": 1, "betas": ("a", "b")}, "`betas` are"),
        ({"steps": 1, "clip": "x"}, "`clip` is 'x'"),
        ({"steps": 1, "seed": "x"}, "`seed` is 'x'"),
        ({"steps": 1, "seed": 2**70}, "`seed` is"),
        ({"steps": 1, "optimizer": "sgd", "nesterov": True}, "`nesterov` needs a momentum"),
        ({"steps": 1, "task": 5}, "member `a`: `task` is 5"),
        ({"steps": 1, "start": 5}, "member `a`: `start` is 5"),
        ({"steps": 1, "lr": 1e38}, "`lr` is 1e\\+38\n  hint: it is a number from 0 to 1e\\+09"),
        ({"steps": 1, "weight_decay": 1e38}, "`weight_decay` is 1e\\+38"),
        ({"steps": 1, "warmup": float("inf")}, "`warmup` is inf"),
        ({"epochs": 1e308}, "`epochs` is 1e\\+308"),
        ({"steps": 1, "evaluate_every": 1, "patience": -1}, "`patience` is -1"),
        ({"steps": 1, "evaluate_every": 1, "patience": float("nan")}, "`patience` is nan"),
        ({"steps": 1, "evaluate_every": 1, "patience": 1.5}, "`patience` is 1.5"),
        ({"steps": 1, "evaluate_every": float("nan")}, "`evaluate_every` is nan"),
        ({"steps": 1, "drop_last": "no"}, "`drop_last` is 'no'"),
        ({"steps": 1, "schedule": lambda step: 1.0}, "member `a`: its schedule can't be used at step 0 of 1"),
        ({"steps": 1, "schedule": lambda step, steps: None}, "can't be used at step 0 of 1: TypeError"),
        ({"steps": 1, "schedule": lambda step, steps: step / 0}, "ZeroDivisionError"),
        ({"steps": 1, "schedule": lambda step, steps: float("nan")}, "its schedule gives nan at step 0 of 1"),
        ({"epochs": 1, "schedule": lambda step, steps: -1}, "its schedule gives -1 at step 0 of 1"),
        ({"steps": 1, "schedule": lambda step, steps: "1"}, "its schedule gives '1' at step 0 of 1"),
    ],
)
def test_settings_out_of_bounds(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Member(name="a", **settings)


@pytest.mark.parametrize("name", [5, None, "a\0b"])
def test_a_name_that_is_none(name: Any) -> None:
    with pytest.raises(InputError, match="`name` is "):
        Member(name=name, steps=1)


@pytest.mark.parametrize("backend", ["sequential", "stacked"])
@pytest.mark.parametrize("later", [None, float("nan")])
def test_a_schedule_that_gives_no_number_later(backend: Any, later: Any) -> None:
    member = Member(name="a", steps=4, schedule=lambda step, steps: 1.0 if step < 2 else later)
    refused("member `a`: its schedule .* step 2 of 4", member, backend=backend)


@pytest.mark.parametrize("backend", ["sequential", "stacked"])
def test_the_highest_learning_rate_ends_its_member_alone(backend: Any) -> None:
    splits: Any = {"train": (torch.randn(40, 12), torch.randn(40, 3))}
    learned = Task("t", splits, loss=SquaredError(), metric=mean_squared_error())
    own = [
        Member(name=n, steps=60, lr=lr, weight_decay=decay, optimizer="sgd", momentum=0.9)
        for n, lr, decay in (("high", 1e9, 1e9), ("low", 1e-3, 0))
    ]
    fleet = Fleet(own, learned, model=MLP, backend=backend)
    with pytest.warns(FleetWarning, match="member `high` failed"):
        fleet.fit()
    assert fleet.status == {"high": "failed", "low": "finished"}


class Sparse(nn.Module):
    def __init__(self, kind: type[nn.Module] = nn.Embedding, frozen: bool = False) -> None:
        super().__init__()
        self.inner = nn.ModuleDict({"table": kind(5, 12, sparse=True)})
        self.inner.requires_grad_(not frozen)
        self.last = nn.Linear(12, 3)
        self.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.inner["table"](x.long().clamp(0, 4))
        return self.last(found.mean(1) if found.dim() > 2 else found)


@pytest.mark.parametrize("backend", ["sequential", "stacked"])
@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_sparse_gradients(backend: Any, kind: Any) -> None:
    message = rf"member `a`: module `inner.table` \({kind.__name__}\) has sparse gradients"
    refused(message, Member(name="a", steps=1), model=lambda: Sparse(kind), backend=backend)


def test_a_sparse_layer_may_be_frozen() -> None:
    fleet = Fleet([Member(name="a", steps=1)], task(MLP), model=lambda: Sparse(frozen=True))
    assert fleet.fit().status == {"a": "finished"}


def test_losses_and_metrics_of_others() -> None:
    learned = task(MLP)
    for wrong in (nn.CrossEntropyLoss(), CrossEntropy, nn.functional.cross_entropy):
        foreign = Task("t", learned.splits, loss=wrong)  # type: ignore[arg-type]
        refused(
            "task `t`: `loss` is .*no loss of plait\n.*CrossEntropy", Member(name="a", steps=1, task=foreign)
        )
    foreign = Task("t", learned.splits, metric=accuracy)  # type: ignore[arg-type]
    refused("task `t`: `metric` is accuracy, no metric of plait", Member(name="a", steps=1, task=foreign))


def test_patience_without_validation() -> None:
    learned = task(MLP)
    bare = Task("bare", {"train": learned.splits["train"]}, head=learned.head)
    member = Member(name="a", steps=4, evaluate_every=1, patience=1)
    refused("`bare` has no split `validation`", member, tasks=bare)


def test_settings_of_the_fleet(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    member = Member(name="a", steps=1)
    refused("`log_every` is 0", member, log_every=0)
    refused("`save_every` is -1", member, save_every=-1)
    refused("folder is a file", member, out=tmp_path / "file")
    refused("the device `cuda:77` can't be used", member, device="cuda:77")
    refused("the device `nowhere` can't be used", member, device="nowhere")
    for model in ("x", 5):
        refused(f"`model` is {model!r}", member, model=model)
    refused("its start could not be made: TypeError", member, model=nn.Linear)
    for threads in (0, -1, 1.5, "x", 10**12):
        refused(f"`threads` is {threads!r}", member, threads=threads)
    for tasks in (5, [5], {"a": 5}):
        refused("5 is no task", member, tasks=tasks)
    refused("5 is no writer", member, writers=[5])
    refused("`writers` is a int", member, writers=5)
    refused("the writer TensorBoard is a class", member, writers=[TensorBoard])
    for message, callbacks in (
        ("`callbacks` is SuccessiveHalving", SuccessiveHalving),
        (r"the callback SuccessiveHalving is a class\n.*SuccessiveHalving\(…\)", [SuccessiveHalving]),
        ("`callbacks` is a int", 5),
    ):
        with pytest.raises(InputError, match=message):
            Fleet([member], task(MLP), model=lambda: MLP().double()).fit(callbacks=callbacks)  # type: ignore[arg-type]
    single: Any = SuccessiveHalving(rungs=[1])
    with pytest.raises(InputError, match="`callbacks` is a SuccessiveHalving"):
        Fleet([member], task(MLP), model=lambda: MLP().double()).fit(callbacks=single)


def test_members_of_different_architectures_in_one_stack() -> None:
    wide = Member(name="wide", steps=1, start=lambda: MLP(width=32).double())
    refused(
        "members `a` and `wide` can't share a stack: tensor `first.weight`",
        Member(name="a", steps=1),
        wide,
        backend="stacked",
    )


def test_members_that_drop_differently_in_one_stack() -> None:
    other = Member(name="b", steps=1, start=lambda: MLP(dropout=0.2).double())
    refused("can't share a stack: module `dropout`", Member(name="a", steps=1), other, backend="stacked")


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(12, 3).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inner(x)
        return x if x.sum() > 0 else -x


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = Branching()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.branch(x)


def test_a_module_that_cannot_be_vmapped_is_named_and_auto_trains_it_alone() -> None:
    own = [Member(name="a", steps=2), Member(name="b", steps=2)]
    refused(
        r"module `branch` \(Branching\) can't be stacked.*\n.*sequential",
        *own,
        model=Outer,
        backend="stacked",
    )
    fleet = Fleet(own, task(MLP), model=Outer).fit()
    assert [choice.kind for choice in fleet.choices.values()] == ["sequential"]
    assert set(fleet.status.values()) == {"finished"}


def test_batches_of_unequal_size_under_batch_norm() -> None:
    make = functools.partial(CNN, normalised=True)
    own = [Member(name="a", steps=1, batch_size=8), Member(name="b", steps=1, batch_size=16)]
    refused(
        "`normal` normalises over a batch",
        *own,
        tasks=task(CNN, 64),
        model=lambda: make().double(),
        backend="stacked",
    )


def test_data_and_head_that_disagree() -> None:
    wide = Task("t", {"train": (torch.randn(9, 5, dtype=torch.float64), torch.zeros(9, dtype=torch.int64))})
    refused("data, network and loss of task `t` don't fit", Member(name="a", steps=1, task=wide))


def test_a_label_out_of_range() -> None:
    x, y = torch.randn(9, 12), torch.arange(9)
    with pytest.raises(InputError, match="label 8 is out of range: the head has 3 outputs"):
        Task("t", {"train": (x, y)}, head=nn.Linear(3, 3))
    without_head = Task("t", {"train": (x.double(), y)})
    refused("label 8 is out of range", Member(name="a", steps=1, task=without_head))


def test_an_empty_split() -> None:
    with pytest.raises(InputError, match="task `t`: split `train` is empty"):
        Task("t", {"train": (torch.randn(0, 12), torch.zeros(0, dtype=torch.int64))})


def test_a_task_that_is_not_there() -> None:
    refused("there is no task `tusk`\n  hint: did you mean `task`", Member(name="a", steps=1, task="tusk"))
    refused("it has no task", Member(name="a", steps=1), tasks=None)


def test_a_task_without_training_data() -> None:
    only = Task("t", {"test": labelled(MLP, 5)})
    refused("there is no split `train`", Member(name="a", steps=1, task=only))


def test_nothing_to_start_from() -> None:
    refused("there is nothing to start from", Member(name="a", steps=1), model=None)


def test_members_that_wait_for_each_other() -> None:
    refused(
        "waits for itself",
        Member(name="a", steps=1, start=After("b")),
        Member(name="b", steps=1, start=After("a")),
    )
    refused("it starts after `z`", Member(name="a", steps=1, start=After("z")))


def test_a_network_without_anything_to_train() -> None:
    refused(
        "no parameter is trained",
        Member(name="a", steps=1),
        model=lambda: MLP().double().requires_grad_(False),
    )


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("stakced", "there is no backend `stakced`\n  hint: did you mean `stacked`"),
        (None, "there is no backend `None`"),
        (["auto"], "there is no backend `"),
    ],
)
def test_a_backend_that_is_not_there(backend: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Fleet([Member(name="a", steps=1)], task(MLP), model=MLP, backend=backend)


@pytest.mark.parametrize("members", [None, 5, "a", Member])
def test_members_that_are_no_list(members: Any) -> None:
    with pytest.raises(InputError, match=r"`members` is .*\n.*plait\.Member"):
        Fleet(members, task(MLP), model=MLP)


def test_two_tasks_of_one_name() -> None:
    refused("two tasks are called `task`", Member(name="a", steps=1), tasks=[task(MLP), task(MLP, seed=2)])
    with pytest.raises(InputError, match="5 is no task"):
        Fleet([Member(name="a", steps=1)], [5, task(MLP)], model=MLP)  # type: ignore[list-item]


def test_a_loss_that_gives_one_number() -> None:
    class Mean(SquaredError):
        def __call__(self, outputs: Any, batch: Any) -> Any:
            values, weights = super().__call__(outputs, batch)
            return values.mean(), weights

    x = torch.randn(9, 12, dtype=torch.float64)
    wrong = Task("t", {"train": (x, torch.randn(9, 3))}, loss=Mean())
    refused("one value and one weight for each example", Member(name="a", steps=1, task=wrong))


@pytest.mark.parametrize("backend", ["sequential", "stacked", "auto"])
def test_outputs_that_are_not_as_many_as_labels(backend: Any) -> None:
    x = torch.randn(9, 12)
    numbers = [
        Task("one", {"train": (x, torch.randn(9))}, loss=SquaredError(), metric=mean_squared_error()),
        Task("three", {"train": (x, torch.randn(9, 3))}, loss=SquaredError(), metric=mean_squared_error()),
    ]
    own = [Member(name=each.name, steps=1, task=each) for each in numbers]
    Fleet(own[1:], model=MLP, backend=backend).fit()
    with pytest.raises(InputError, match=r"member `one`, task `one`.* of size 3 for labels of size 1"):
        Fleet(own, model=MLP, backend=backend)


def test_validations_whose_labels_are_others_in_number() -> None:
    splits: Any = {
        "train": (torch.randn(9, 12), torch.randn(9, 3)),
        "validation": (torch.randn(9, 12), torch.randn(9)),
    }
    numbers = Task("numbers", splits, loss=SquaredError(), metric=mean_squared_error())
    with pytest.raises(InputError, match=r"member `a`, task `numbers`, split `validation`: .* of size 1"):
        Fleet([Member(name="a", steps=1)], numbers, model=MLP)


def test_splits_that_share_a_source() -> None:
    x, y = torch.randn(2, 12), torch.zeros(2, dtype=torch.int64)
    first = Columns({"input": x, "label": y}, source=["one.txt", "two.txt"])
    second = Columns({"input": x, "label": y}, source=["two.txt", "three.txt"])
    with pytest.raises(InputError, match=r"splits `train` and `test` share `two.txt`"):
        Task("t", {"train": first, "test": second}, loss=CrossEntropy())

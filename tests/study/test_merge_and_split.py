"""MAS: how much tasks help each other, and who goes on with whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import small_federation as small
import torch
from torch import nn
from torch.nn import functional as F

from plait.errors import InputError
from plait.study import federated
from plait.study.federated import Affinities, Joined, Local
from plait.study.federated._grouping import group_score
from plait.tasks import Batch, SquaredError, Task, mean_squared_error

LOCAL = Local(4, 40, 0.2, weight_decay=0.05)


def batches(tasks: list[Task], rows: range = range(20)) -> dict[str, Batch]:
    return {task.name: task.split("train").batch(rows) for task in tasks}


def test_affinities_are_their_equation() -> None:
    """S = (1 − L_j(φ − η (∇L_i + decay · φ)) / L_j(φ)) / η, heads fixed; here with everything written out."""
    tasks = [small.task(name, number) for number, name in enumerate("abc")]
    network = Joined(small.body(), tasks)
    found = federated.probe(network, batches(tasks), LOCAL)
    assert found.keys() == {(one, other) for one in "abc" for other in "abc"}

    def loss(body: nn.Module, task: Task) -> torch.Tensor:
        batch = task.split("train").batch(range(20))
        assert isinstance(task.head, nn.Linear)
        weight, bias = task.head.weight.double(), task.head.bias.double()
        return F.cross_entropy(body(batch["input"].double()) @ weight.T + bias, batch["label"])

    for one in tasks:
        moved, start = small.body().double(), small.body().double()
        loss(start, one).backward()
        with torch.no_grad():
            for new, old in zip(moved.parameters(), start.parameters(), strict=True):
                assert old.grad is not None
                new.copy_(old - 0.2 * (old.grad + 0.05 * old))
        for other in tasks:
            wanted = (1 - loss(moved, other).item() / loss(start, other).item()) / 0.2
            assert found[one.name, other.name] == pytest.approx(wanted, rel=1e-3, abs=1e-5)


def twins(sign: float) -> list[Task]:
    """Two tasks of the same examples and the same head, whose right answers are the same or opposite."""
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 4)).astype(np.float32)
    y = np.tanh(x).sum(1).astype(np.float32) * 0.3
    with torch.random.fork_rng():
        torch.manual_seed(3)
        head = nn.Linear(5, 1)
        head.bias.data.zero_()
    made = SquaredError(), mean_squared_error()
    return [
        Task("a", {"train": (x, y)}, *made, head=head),
        Task("b", {"train": (x, sign * y)}, *made, head=head),
    ]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_step_for_a_task_helps_its_twin_and_harms_its_opposite(sign: float) -> None:
    tasks = twins(sign)
    network = Joined(small.body(), tasks)
    found = federated.probe(network, batches(tasks, range(40)), Local(1, 80, 0.01))
    assert found["a", "a"] > 0
    assert found["b", "b"] > 0
    if sign == 1:
        assert found["a", "b"] == found["b", "a"] == found["a", "a"]
    else:
        assert found["a", "b"] < 0
        assert found["b", "a"] < 0


def test_probing_leaves_the_network_as_it_was_to_the_bit() -> None:
    tasks = [small.task(name, number) for number, name in enumerate("ab")]
    body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.4), nn.Linear(6, 5))
    network = Joined(body, tasks).train()
    before = {name: each.clone() for name, each in network.state_dict().items()}
    state = torch.random.get_rng_state()
    federated.probe(network, batches(tasks), LOCAL)
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert network.training


def test_training_goes_as_it_would_without_probes() -> None:
    tasks = [small.task(name, number) for number, name in enumerate("ab")]
    body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.4), nn.Linear(6, 5))
    network, rows = Joined(body, tasks), {"a": np.arange(60), "b": np.arange(60)}
    start, seen = network.vector(), Affinities(["a", "b"], 2, LOCAL)
    one, two = (
        federated.trained_locally(network, start, rows, LOCAL, np.random.default_rng(0), look)
        for look in (None, seen.look)
    )
    assert torch.equal(one, two)
    assert seen.counts.tolist() == [[2, 2], [2, 2]]  # of four batches, the second and the fourth


def test_affinities_are_means_over_batches() -> None:
    tasks = [small.task(name, number) for number, name in enumerate("ab")]
    network, seen = Joined(small.body(), tasks), Affinities(["a", "b"], 1, LOCAL)
    parts = [batches(tasks, range(10 * n, 10 * n + 10)) for n in range(3)]
    for number, part in enumerate(parts):
        seen.look(network, part, number + 1)
    each = [federated.probe(network, part, LOCAL) for part in parts]
    assert seen.mean()[0, 1] == pytest.approx(np.mean([found["a", "b"] for found in each]), rel=1e-12)
    again = Affinities(["a", "b"], 1, LOCAL)
    again.restore(seen.state())
    assert np.array_equal(again.mean(), seen.mean())


def test_a_loss_of_zero_says_nothing() -> None:
    one = twins(1.0)[0]
    body = small.body()
    batch = one.split("train").batch(range(10))
    assert one.head is not None
    with torch.no_grad():
        batch["label"] = one.head(body(batch["input"]))[:, 0]
    other = replace(one, name="b")
    tasks = [one, other]
    found = federated.probe(
        Joined(body, tasks), {"a": batch, "b": other.split("train").batch(range(10))}, LOCAL
    )
    assert found.keys() == {("a", "b"), ("b", "b")}


def test_tasks_that_never_met_can_t_be_compared() -> None:
    tasks = [small.task(name, number) for number, name in enumerate("ab")]
    seen = Affinities(["a", "b"], 1, LOCAL)
    seen.look(Joined(small.body(), tasks), batches(tasks[:1]), 1)
    with pytest.raises(InputError, match="examples of both `a` and `b`"):
        seen.mean()


# ---- groups


def test_twins_go_together() -> None:
    affinity = np.array([[1, -0.2, 0.9, -0.1], [-0.2, 1, -0.3, 0.8], [0.9, -0.3, 1, 0], [-0.1, 0.8, 0, 1]])
    assert federated.best_groups(affinity, 2) == [[0, 2], [1, 3]]


def opposite(task: Task) -> Batch:
    batch = task.split("train").batch(range(40))
    return batch | {"label": -batch["label"]}


def test_measured_twins_go_together() -> None:
    """Of two pairs with opposite answers each is with its twin."""
    pairs = [*twins(1.0), *(replace(task, name=task.name + "'") for task in twins(1.0))]
    flipped = [replace(task, splits={"train": opposite(task)}) for task in pairs[2:]]
    tasks = [pairs[0], flipped[0], pairs[1], flipped[1]]
    names = [task.name for task in tasks]
    seen = Affinities(names, 1, Local(1, 80, 0.01))
    seen.look(Joined(small.body(), tasks), batches(tasks, range(40)), 1)
    groups = federated.best_groups(seen.mean(), 2)
    assert [[names[n] for n in group] for group in groups] == [["a", "b"], ["a'", "b'"]]


def partitions(items: list[int]) -> Iterator[list[list[int]]]:
    """All divisions into groups, the plain way."""
    if not items:
        yield []
        return
    first, *rest = items
    for division in partitions(rest):
        yield [[first], *division]
        for place, group in enumerate(division):
            yield [*division[:place], [first, *group], *division[place + 1 :]]


def placement(affinity: np.ndarray, division: list[list[int]]) -> float:
    """The mean over tasks, written out."""
    found, count = [], len(affinity)
    for group in division:
        for task in group:
            if len(group) > 1:
                found.append(sum(affinity[i, task] for i in group if i != task) / (len(group) - 1))
            else:
                others = [i for i in range(count) if i != task]
                both = [affinity[i, task] for i in others] + [affinity[task, i] for i in others]
                found.append(sum(both) / len(both) if both else 0.0)
    return sum(found) / count


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_no_division_is_better_than_the_one_found(count: int) -> None:
    for seed in range(3):
        affinity = np.random.default_rng([count, seed]).normal(size=(count, count))
        for groups in range(1, count + 1):
            found = federated.best_groups(affinity, groups)
            assert len(found) == groups
            assert sorted(task for group in found for task in group) == list(range(count))
            best = max(
                placement(affinity, each) for each in partitions(list(range(count))) if len(each) == groups
            )
            assert placement(affinity, found) == pytest.approx(best, abs=1e-12)
            assert sum(group_score(affinity, group) for group in found) / count == pytest.approx(best)


def test_one_group_is_all_tasks_and_as_many_groups_as_tasks_are_each_alone() -> None:
    affinity = np.random.default_rng(0).normal(size=(5, 5))
    assert federated.best_groups(affinity, 1) == [[0, 1, 2, 3, 4]]
    assert federated.best_groups(affinity, 5) == [[0], [1], [2], [3], [4]]


def test_the_most_tasks_are_divided_in_a_few_seconds() -> None:
    affinity = np.random.default_rng(0).normal(size=(federated.MOST_TASKS,) * 2)
    found = federated.best_groups(affinity, 3)
    assert sorted(task for group in found for task in group) == list(range(federated.MOST_TASKS))

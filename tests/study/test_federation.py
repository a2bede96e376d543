"""Simulated clients: how examples are dealt, how long training takes, how places are shared."""

from __future__ import annotations

import numpy as np
import pytest
import small_federation as small
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from plait.study import federated
from plait.study.federated import Clock, Delays, Joined, Local, Request
from plait.tasks import SquaredError, Task

# ---- examples


@pytest.mark.parametrize("alpha", [None, 0.05, 1.0, 1000.0])
def test_every_example_is_one_client_s(alpha: float | None) -> None:
    dealt = federated.deal(small.task("a", 0), 15, alpha, 3)
    assert len(dealt) == 15
    assert sorted(np.concatenate(dealt)) == list(range(120))


def test_without_alpha_all_clients_have_equally_many() -> None:
    assert {len(rows) for rows in federated.deal(small.task("a", 0), 15, None, 0)} == {8}


def test_shares_of_a_class_are_dirichlet_s() -> None:
    """Each client's share has the mean 1/N and the variance (1/N)(1 − 1/N) / (Nα + 1)."""
    count, alpha = 5, 0.7
    labels = np.zeros(20_000, np.int64)
    one = Task("one class", {"train": (np.zeros((20_000, 1), np.float32), labels)})
    shares = np.array(
        [[len(rows) / 20_000 for rows in federated.deal(one, count, alpha, s)] for s in range(400)]
    )
    variance = (1 / count) * (1 - 1 / count) / (count * alpha + 1)
    # Four standard errors of 2000 shares.
    assert abs(shares.mean() - 1 / count) < 1e-9
    assert shares.mean(0) == pytest.approx(np.full(count, 1 / count), abs=4 * np.sqrt(variance / 400))
    assert shares.var() == pytest.approx(variance, rel=0.15)


def test_a_small_alpha_gives_clients_few_classes() -> None:
    one = small.task("a", 0, rows=600)
    labels = one.split("train").batch(range(600))["label"].numpy()

    def kinds(alpha: float) -> float:
        dealt = federated.deal(one, 10, alpha, 0)
        return float(np.mean([len(np.unique(labels[rows])) for rows in dealt if len(rows)]))

    assert kinds(0.05) < kinds(100.0) == 3


def test_numbers_have_no_classes_and_are_dealt_evenly() -> None:
    splits = {"train": (np.zeros((30, 2), np.float32), np.arange(30.0))}
    dealt = federated.deal(Task("n", splits, loss=SquaredError()), 6, 0.1, 0)
    assert [len(rows) for rows in dealt] == [5] * 6


def test_the_deal_of_one_task_does_not_depend_on_the_others() -> None:
    one, two = small.task("a", 0), small.task("b", 1)
    alone = federated.gathered([one], 10, 0.5, Delays(), 4).shards["a"]
    both = federated.gathered([two, one], 10, 0.5, Delays(), 4).shards["a"]
    assert all(np.array_equal(x, y) for x, y in zip(alone, both, strict=True))


# ---- time


def test_a_quarter_of_clients_is_slow_and_a_quarter_fast() -> None:
    clients = federated.gathered([small.task("a", 0)], 20, None, Delays(slow=3, fast=0.25), 0)
    assert sorted(clients.slowness) == [0.25] * 5 + [1] * 10 + [3] * 5
    assert set(federated.gathered([small.task("a", 0)], 3, None, Delays(), 0).slowness) == {1}


def test_delays_are_a_shift_and_an_exponential_part() -> None:
    clients = federated.gathered([small.task("a", 0)], 20, None, Delays(shift=0.25), 0)
    slow = int(np.argmax(clients.slowness))
    times = np.array([clients.seconds(slow, "a", number, 3.0) for number in range(4000)]) / (2 * 3)
    assert times.min() >= 0.25
    assert times.mean() == pytest.approx(1, abs=4 * 0.75 / np.sqrt(4000))
    assert times.std() == pytest.approx(0.75, rel=0.1)


def test_a_client_does_one_thing_after_another() -> None:
    clock = Clock(10)
    first, second, other = (
        Request("a", 0, 7, 0, 2.0),
        Request("b", 0, 7, 0, 3.0),
        Request("a", 1, 8, 0, 4.0),
    )
    for request in (first, second, other):
        clock.ask(request)
    told = []
    while clock.pending:
        told += [(clock.arrivals(), clock.now)]
    assert told == [([first], 12), ([other], 14), ([second], 15)]


def test_what_ends_at_once_arrives_at_once() -> None:
    clock = Clock()
    for client in (3, 1, 2):
        clock.ask(Request("a", client, client, 0, 1.0))
    assert [request.client for request in clock.arrivals()] == [1, 2, 3]


def test_cancelled_requests_leave_their_clients_free() -> None:
    clock = Clock()
    for model, number, client in (("a", 0, 1), ("b", 0, 1), ("a", 1, 1), ("b", 1, 2), ("a", 2, 3)):
        clock.ask(Request(model, number, client, 0, 2.0 + client))
    clock.arrivals()
    assert clock.now == 3  # client 1 has begun with `b`, which takes 3 more
    clock.cancel("b")
    assert clock.flying == {"a": 2}
    assert [(request.model, request.number) for request in clock.arrivals()] == [("a", 2)]
    assert clock.now == 5
    assert [(request.model, request.number) for request in clock.arrivals()] == [("a", 1)]
    assert clock.now == 6  # begun at 3, when `b` was cancelled


def test_a_clock_goes_on_from_what_was_saved() -> None:
    clock = Clock()
    for number in range(6):
        clock.ask(Request("a", number, number % 2, 0, 1.0 + number))
    clock.arrivals()
    other = Clock.restored(clock.state())
    while clock.pending:
        assert clock.arrivals() == other.arrivals()
        assert clock.now == other.now
    assert not other.pending


# ---- places


@given(
    st.integers(0, 60),
    st.lists(st.floats(0, 1e6), min_size=1, max_size=6),
    st.integers(1, 4),
)
def test_shares_are_units_near_the_weights_and_sum_up(total: int, weights: list[float], unit: int) -> None:
    shares = federated.dealt(total, weights, unit)
    assert sum(shares) == total
    assert min(shares) >= 0
    assert sum(share % unit != 0 for share in shares) <= 1
    parts = np.array(weights) / sum(weights) if sum(weights) > 0 else np.full(len(weights), 1 / len(weights))
    assert np.abs(np.array(shares) - parts * total).max() < unit * (len(weights) + 1)


def test_shares_by_hand() -> None:
    assert federated.dealt(12, [1, 1, 2]) == [3, 3, 6]
    assert federated.dealt(12, [0, 0, 0]) == [4, 4, 4]
    assert federated.dealt(12, [1e-9, 1, 0], unit=2, least=1) == [2, 8, 2]
    assert federated.dealt(13, [1, 3], unit=4) == [4, 9]


def test_the_estimate_of_variance_is_its_formula() -> None:
    random = np.random.default_rng(0)
    deltas = random.normal(1, 2, size=(6, 50))
    mean = sum(deltas) / 6
    spread = sum(((delta - mean) ** 2).sum() for delta in deltas) / 6
    wanted = 0.3 * 0.7 * spread / ((mean**2).sum() * (0.3 * 5) ** 2)
    found = federated.update_variance([torch.from_numpy(each) for each in deltas], 0.3, 0.7, 5)
    assert found == pytest.approx(wanted, rel=1e-12)
    assert federated.update_variance([torch.ones(3), -torch.ones(3)], 0.3, 0.7, 5) is None
    assert federated.update_variance([torch.ones(3), torch.ones(3)], 0.3, 0.7, 5) == 0


# ---- local training


def test_local_training_is_gradient_descent_on_the_client_s_examples() -> None:
    one, local, rows = small.task("a", 0), Local(4, 50, 0.3, weight_decay=0.1), np.arange(5, 45)
    network = Joined(small.body(), [one])
    start = network.vector()
    delta = federated.trained_locally(network, start, {"a": rows}, local, np.random.default_rng(0))
    wanted = small.descended(one, start, rows, local) - start.double()
    torch.testing.assert_close(delta.double(), wanted, atol=1e-6, rtol=1e-5)


def test_local_training_of_several_tasks_follows_the_sum_of_their_losses() -> None:
    tasks, local = [small.task("a", 0), small.task("b", 1)], Local(3, 200, 0.3)
    rows = {"a": np.arange(30), "b": np.arange(60, 110)}
    network = Joined(small.body(), tasks)
    delta = federated.trained_locally(network, network.vector(), rows, local, np.random.default_rng(0))
    shared = small.body().double()
    heads = [nn.Linear(5, 3).double() for _ in tasks]
    for head, task in zip(heads, tasks, strict=True):
        assert task.head is not None
        head.load_state_dict({name: each.double() for name, each in task.head.state_dict().items()})
    parameters = [*shared.parameters(), *heads[0].parameters(), *heads[1].parameters()]
    before = nn.utils.parameters_to_vector(parameters).detach().clone()
    optimizer = torch.optim.SGD(parameters, lr=0.3)
    for _ in range(3):
        losses = []
        for head, task in zip(heads, tasks, strict=True):
            batch = task.split("train").batch(rows[task.name])
            losses.append(nn.functional.cross_entropy(head(shared(batch["input"].double())), batch["label"]))
        optimizer.zero_grad()
        (losses[0] + losses[1]).backward()
        optimizer.step()
    wanted = nn.utils.parameters_to_vector(parameters).detach() - before
    torch.testing.assert_close(delta.double(), wanted, atol=1e-6, rtol=1e-5)


def test_a_task_without_examples_at_a_client_keeps_its_head() -> None:
    tasks = [small.task("a", 0), small.task("b", 1)]
    network = Joined(small.body(), tasks)
    rows = {"a": np.arange(30), "b": np.arange(0)}
    delta = federated.trained_locally(
        network, network.vector(), rows, Local(3, 20, 0.3), np.random.default_rng(0)
    )
    head = 5 * 3 + 3
    assert delta[-head:].abs().max() == 0
    assert delta[:-head].abs().max() > 1e-3


def test_averages_hold_floating_point_buffers_and_no_counters() -> None:
    one = small.task("a", 0)
    network = Joined(nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)), [one])
    start = network.vector()
    assert len(start) == 4 * 5 + 5 + 4 * 5 + 5 * 3 + 3
    delta = federated.trained_locally(
        network, start, {"a": np.arange(40)}, Local(2, 20, 0.1), np.random.default_rng(0)
    )
    network.fill(start + delta)
    assert torch.equal(network.vector(), start + delta)
    (counter,) = (each for each in network.buffers() if not each.is_floating_point())
    assert counter.item() == 0


def test_work_counts_multiplications_of_body_and_head() -> None:
    one = small.task("a", 0)
    assert federated.forward_work(one, small.body()) == 2 * (4 * 6 + 6 * 5 + 5 * 3)


def test_a_batch_of_several_tasks_goes_through_the_body_once() -> None:
    forward, local = {"a": 10.0, "b": 30.0}, Local(10, 8, 0.1)
    alone = [federated.work_of([task], forward, local) for task in ("a", "b")]
    assert alone == [pytest.approx(10 / 20), pytest.approx(30 / 20)]
    assert federated.work_of(["a", "b"], forward, local) == pytest.approx(1)
    # Two of ten batches are probed: 3 for the gradients, and a forward pass after each task's step.
    assert federated.work_of(["a", "b"], forward, local, 5) == pytest.approx((10 * 3 + 2 * (3 + 2)) / 30)


def test_tasks_share_a_batch_as_evenly_as_they_can() -> None:
    assert Local(1, 16, 0.1).shares(3) == [6, 5, 5]


def test_bodies_without_heads_learn_tasks_too() -> None:
    random = np.random.default_rng(0)
    tasks = [
        Task(name, {"train": (random.normal(size=(40, 4)).astype(np.float32), random.integers(0, 3, 40))})
        for name in "ab"
    ]
    body = nn.Linear(4, 3)
    network = Joined(body, tasks)
    start = network.vector()
    assert len(start) == 4 * 3 + 3
    assert network.of("b") is body
    delta = federated.trained_locally(
        network, start, {"a": np.arange(40), "b": np.arange(40)}, Local(1, 80, 0.1), np.random.default_rng(0)
    )
    network.fill(start)
    loss = sum(
        nn.functional.cross_entropy(body(batch["input"]), batch["label"])
        for batch in (task.split("train").batch(range(40)) for task in tasks)
    )
    assert isinstance(loss, torch.Tensor)
    wanted = -0.1 * torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(body.parameters()))])
    torch.testing.assert_close(delta, wanted, atol=1e-6, rtol=1e-4)
    other = Joined(nn.Linear(4, 3), tasks[:1])
    other.take(network)
    assert torch.equal(other.vector(), start)


def test_what_is_frozen_stays() -> None:
    one, body = small.task("a", 0), small.body()
    for parameter in body[0].parameters():
        parameter.requires_grad_(False)
    network = Joined(body, [one])
    delta = federated.trained_locally(
        network, network.vector(), {"a": np.arange(40)}, Local(2, 20, 0.3, 0.5), np.random.default_rng(0)
    )
    assert delta[: 4 * 6 + 6].abs().max() == 0
    assert delta[4 * 6 + 6 :].abs().max() > 0

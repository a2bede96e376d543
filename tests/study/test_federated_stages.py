"""FedAST, FedAvg in rounds, and what of them must hold whatever clients do."""

from __future__ import annotations

import heapq
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import small_federation as small
import torch

from plait.errors import InputError
from plait.study import federated
from plait.study.federated import Asynchronous, Delays, Local, Model, Stage, Synchronous, _stage

LOCAL = small.LOCAL
#: With it nobody is asked twice in a round of the first test, so that nobody is late.
SEED = 3
TASKS = [small.task("a", 0), small.task("b", 1)]


def fedast(buffer: int | None = None, **more: int) -> Asynchronous:
    return Asynchronous(LOCAL, 1.0, buffer, **more)


def test_with_full_buffers_and_equal_delays_fedast_is_fedavg(tmp_path: Path) -> None:
    stage = small.stage(tmp_path / "s", TASKS, fedast(4), places=8, limit=12, server_lr=0.8, seed=SEED)
    asked = small.noted(stage)
    stage.run()
    for task, model in zip(TASKS, stage.models, strict=True):
        own = [request for _, request in asked if request.model == task.name]
        rounds = [[r.client for r in own if r.version == version] for version in range(3)]
        assert [len(clients) for clients in rounds] == [4, 4, 4]
        theta = small.models([task])[0].theta.double()
        for clients in rounds:
            shards = [stage.clients.shards[task.name][client] for client in clients]
            local = [small.descended(task, theta, rows, LOCAL) for rows in shards]
            theta = theta + 0.8 * (sum(local) / 4 - theta)
        torch.testing.assert_close(model.theta.double(), theta, atol=1e-5, rtol=1e-5)
        assert model.version == 3
        assert stage.clock.now == 3


def test_rounds_of_all_clients_are_fedavg_to_the_bit_of_fedast(tmp_path: Path) -> None:
    """With as many clients as places both ask everybody in every round, if FedAST's draw is as fair."""
    one = [small.task("a", 0)]
    clients = federated.gathered(one, 1, None, small.EQUAL, 0)
    ways = [
        small.stage(tmp_path / f"{n}", one, policy, places=1, limit=6, clients=clients)
        for n, policy in enumerate((fedast(1), Synchronous()))
    ]
    for stage in ways:
        stage.run()
    assert torch.equal(ways[0].models[0].theta, ways[1].models[0].theta)
    assert ways[0].clock.now == ways[1].clock.now == 6


def replayed(stage: Stage, asked: list, buffer: int, limit: int) -> tuple[dict, float]:
    """FedAST once more, from who was asked when: queues, arrivals and updates by the book."""
    tasks = {task.name: task for task in TASKS}
    free: dict[int, float] = defaultdict(float)
    ends = []
    for now, request in asked:
        end = free[request.client] = max(now, free[request.client]) + request.seconds
        heapq.heappush(ends, (end, request.client, request))
    thetas = {name: [small.models([task])[0].theta.double()] for name, task in tasks.items()}
    buffers, counts, end = defaultdict(list), defaultdict(int), 0.0
    while any(counts[name] < limit for name in tasks):
        end, _, request = heapq.heappop(ends)
        name, start = request.model, thetas[request.model][request.version]
        if counts[name] >= limit:
            continue
        rows = stage.clients.shards[name][request.client]
        buffers[name].append(small.descended(tasks[name], start, rows, LOCAL) - start)
        counts[name] += 1
        if len(buffers[name]) == buffer:
            thetas[name].append(thetas[name][-1] + 0.5 / buffer * sum(buffers[name]))
            buffers[name].clear()
    return {name: each[-1] for name, each in thetas.items()}, end


def test_fedast_is_its_algorithm_replayed(tmp_path: Path) -> None:
    """Delays of all kinds, few clients with long queues, stale updates: none is discounted."""
    stage = small.stage(
        tmp_path / "s", TASKS, fedast(3), places=10, limit=30, count=6, server_lr=0.5,
        delays=Delays(), work=[1.0, 2.5], local=LOCAL,
    )  # fmt: skip
    # A finished model would free its clients and change what others wait for, so both finish last.
    asked = small.noted(stage)
    stage._finish = lambda model: setattr(model, "finished", True)
    stage.run()
    wanted, end = replayed(stage, asked, 3, 30)
    late = [r for _, r in asked if r.version > 0]
    assert len({r.version for r in late}) > 3
    for model in stage.models:
        torch.testing.assert_close(model.theta.double(), wanted[model.name], atol=1e-5, rtol=1e-5)
    assert stage.clock.now == pytest.approx(end)


@pytest.mark.parametrize("ratio", [None, 2])
def test_active_requests_are_always_as_many(tmp_path: Path, ratio: int | None) -> None:
    tasks = [*TASKS, small.task("c", 2)]
    policy = fedast(2) if ratio is None else fedast(ratio=ratio, window=3)
    stage = small.stage(tmp_path / "s", tasks, policy, places=12, limit=40, delays=Delays(), work=[1, 3, 9])
    ask, seen = stage._ask, list[list[int]]()

    def checked() -> None:
        ask()
        if stage.live:
            assert len(stage.clock.pending) == 12
            assert sum(model.places for model in stage.live) == 12
            seen.append([model.places for model in stage.models])

    stage._ask = checked
    stage.run()
    assert seen[0] == [4, 4, 4]
    assert {0, 12} <= set(seen[-1])
    if ratio is not None:
        assert all(places % 2 == 0 for row in seen for places in row)
        assert any(row not in ([4, 4, 4],) and min(row) > 0 for row in seen)  # shared out by need


@pytest.mark.parametrize("buffer", [1, 3, 5])
def test_a_version_is_made_of_exactly_so_many_updates(
    tmp_path: Path, buffer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = small.stage(tmp_path / "s", TASKS, fedast(buffer), places=6, limit=30, delays=Delays())
    update, sizes = Model.update, list[tuple[int, int]]()

    def counted(model: Model, server_lr: float) -> None:
        sizes.append((len(model.buffer), model.received))
        update(model, server_lr)

    monkeypatch.setattr(Model, "update", counted)
    stage.run()
    assert {size for size, _ in sizes} == {buffer}
    assert all(received % buffer == 0 for _, received in sizes)
    assert [model.version for model in stage.models] == [30 // buffer] * 2


def test_a_finished_model_s_places_and_clients_go_to_the_others(tmp_path: Path) -> None:
    tasks = [small.task(name, n) for n, name in enumerate("abc")]
    stage = small.stage(
        tmp_path / "s", tasks, fedast(2), places=12, limit=40, delays=Delays(), every=2,
        measured=lambda model, task: float(model.received), targets={"b": 10.0},
    )  # fmt: skip
    stage.models[0].places, stage.models[1].places, stage.models[2].places = 6, 4, 2
    asked = small.noted(stage)
    finish, told = stage._finish, {}

    def finished(model: Model) -> None:
        finish(model)
        told[model.name] = [each.places for each in stage.models], dict(stage.clock.flying)

    stage._finish = finished
    stage.run()
    places, flying = told["b"]
    assert places == [9, 0, 3]
    assert "b" not in flying
    b = stage.models[1]
    assert b.received == 10
    assert b.reached["b"] == next(r.time for r in stage.records if r.task == "b" and r.received == 10)
    # Nobody is asked for it any more.
    assert all(now < b.reached["b"] for now, request in asked if request.model == "b")


def test_places_follow_the_root_of_the_variance() -> None:
    models = small.models(TASKS)
    policy = Asynchronous(Local(5, 8, 0.1), 0.5, ratio=2, window=2)
    for model in models:
        model.places = 12
    for number in range(36):
        model, spread = models[number % 2], (0.3, 0.9)[number % 2]
        delta = torch.ones(10) + spread * (-1) ** (number // 2)
        model.buffer.append(delta)
        policy.received(models, model, delta, number + 1)
        if policy.full(model):
            model.buffer.clear()
    # v is as the square of the spread, so the roots are 1 : 3; ¾ · 24 · 2 = 36 updates are a period.
    assert [model.places for model in models] == [6, 18]
    assert all(not model.variances for model in models)
    models[1].buffer = [torch.ones(10)] * 8
    assert not policy.full(models[1])  # 18 / 2
    models[1].buffer.append(torch.ones(10))
    assert policy.full(models[1])


def test_a_round_waits_for_its_slowest(tmp_path: Path) -> None:
    one = [small.task("a", 0)]
    stage = small.stage(tmp_path / "s", one, Synchronous(), places=5, limit=20, delays=Delays())
    asked = small.noted(stage)
    stage.run()
    rounds = [[r for _, r in asked if r.version == version] for version in range(4)]
    assert [len({r.client for r in each}) for each in rounds] == [5] * 4
    assert stage.clock.now == pytest.approx(sum(max(r.seconds for r in each) for each in rounds))
    theta = small.models(one)[0].theta.double()
    for each in rounds:
        shards = [stage.clients.shards["a"][r.client] for r in each]
        theta = sum(small.descended(one[0], theta, rows, LOCAL) for rows in shards) / 5
    torch.testing.assert_close(stage.models[0].theta.double(), theta, atol=1e-5, rtol=1e-5)


def test_a_round_may_leave_the_slowest_behind(tmp_path: Path) -> None:
    one = [small.task("a", 0)]
    stage = small.stage(tmp_path / "s", one, Synchronous(0.4), places=5, limit=6, delays=Delays())
    asked = small.noted(stage)
    stage.run()
    rounds = [sorted(r.seconds for _, r in asked if r.version == version) for version in range(3)]
    assert stage.clock.now == pytest.approx(sum(each[1] for each in rounds))
    assert stage.models[0].version == 3


@pytest.mark.parametrize("places", [10, 30, 50])
def test_a_tenth_of_a_round_is_a_tenth(places: int) -> None:
    (model,) = small.models(TASKS[:1])
    model.round, policy = places, Synchronous(0.1)
    model.buffer = [model.theta] * (places // 10 - 1)
    assert not policy.full(model)
    model.buffer.append(model.theta)
    assert policy.full(model)


def test_a_round_asks_no_more_clients_than_have_examples(tmp_path: Path) -> None:
    one = [small.task("a", 0)]
    clients = federated.gathered(one, 8, None, small.EQUAL, 0)
    shards = [rows if place < 3 else rows[:0] for place, rows in enumerate(clients.shards["a"])]
    clients.shards["a"] = shards
    stage = small.stage(tmp_path / "s", one, Synchronous(), places=5, limit=6, clients=clients)
    asked = small.noted(stage)
    stage.run()
    assert {r.client for _, r in asked} == {0, 1, 2}
    assert stage.models[0].version == 2


def test_the_same_seed_gives_the_same_models_at_the_same_time(tmp_path: Path) -> None:
    def run(name: str, seed: int) -> Stage:
        stage = small.stage(
            tmp_path / name, TASKS, fedast(2), places=6, delays=Delays(), seed=seed, local=Local(3, 2, 0.3)
        )
        stage.run()
        return stage

    one, two, other = run("1", 5), run("2", 5), run("3", 6)
    assert one.clock.now == two.clock.now != other.clock.now
    for x, y, z in zip(one.models, two.models, other.models, strict=True):
        assert torch.equal(x.theta, y.theta)
        assert not torch.equal(x.theta, z.theta)


@pytest.mark.parametrize("policy", [fedast(3), fedast(ratio=2, window=3), Synchronous()], ids=str)
def test_a_killed_stage_goes_on_to_the_bit(
    tmp_path: Path, policy: federated.Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def new(name: str) -> Stage:
        return small.stage(
            tmp_path / name, TASKS, policy, places=8, limit=30, delays=Delays(), local=Local(2, 2, 0.2),
            measured=lambda model, task: float(model.theta.sum()), targets={"a": 1e9},
        )  # fmt: skip

    monkeypatch.setattr(_stage, "_SAVE_EVERY", 7)
    whole = new("whole")
    whole.run()
    train, calls = _stage.trained_locally, [0]

    def killed(*given: object, **more: object) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == 40:
            raise KeyboardInterrupt
        return train(*given, **more)

    monkeypatch.setattr(_stage, "trained_locally", killed)
    with pytest.raises(KeyboardInterrupt):
        new("part").run()
    again = new("part")
    again.run()
    assert calls[0] - 40 < whole.arrivals  # it did not begin anew
    assert again.clock.now == whole.clock.now
    assert again.records == whole.records
    for one, other in zip(again.models, whole.models, strict=True):
        assert torch.equal(one.theta, other.theta)
        assert (one.version, one.received, one.asked) == (other.version, other.received, other.asked)
    calls[0] = 10**6
    done = new("part")
    done.run()
    assert calls[0] == 10**6  # a finished stage trains nothing
    assert torch.equal(done.models[0].theta, whole.models[0].theta)


def test_a_target_of_a_metric_of_which_less_is_better_is_reached_from_above(tmp_path: Path) -> None:
    from dataclasses import replace

    from plait.tasks import mean_squared_error

    one = [replace(small.task("a", 0), metric=mean_squared_error())]
    stage = small.stage(
        tmp_path / "s", one, fedast(2), places=4, limit=40, every=2,
        measured=lambda model, task: 10.0 - model.received, targets={"a": 2.0},
    )  # fmt: skip
    stage.run()
    assert stage.models[0].received == 8


def test_a_target_that_is_met_at_the_start_needs_no_training(tmp_path: Path) -> None:
    stage = small.stage(
        tmp_path / "s", TASKS, fedast(2), places=4, limit=4,
        measured=lambda model, task: 1.0 if task == "a" else 0.0, targets={"a": 0.5, "b": 0.5},
    )  # fmt: skip
    stage.run()
    assert stage.models[0].reached == {"a": 0.0}
    assert [model.received for model in stage.models] == [0, 4]


def test_weights_that_are_no_numbers_end_it_in_words(tmp_path: Path) -> None:
    stage = small.stage(tmp_path / "s", TASKS, fedast(1), places=2, local=Local(3, 8, 1e38))
    with pytest.raises(InputError, match=r"model `.` has weights that are no numbers"):
        stage.run()


def test_updates_are_measured_at_the_time_of_their_version(tmp_path: Path) -> None:
    stage = small.stage(tmp_path / "s", TASKS, Synchronous(), places=8, limit=12, every=4)
    stage.run()
    own = [(r.time, r.received) for r in stage.records if r.task == "a"]
    assert own == [(0, 0), (1, 4), (2, 8), (3, 12)]
    assert np.isfinite([r.value for r in stage.records]).all()

"""Many experiments in one run: what is put in, where, and what it leaves alone."""

from __future__ import annotations

import itertools
import json
import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, reject
from hypothesis import strategies as st
from once_tasks import LENGTH, ROWS, SETTINGS, TASK, VOCABULARY, canary, memory, network, words

from plait.errors import InputError
from plait.fleet import Fleet, Member, visits
from plait.study import Controlled, Experiment, log_probability, train_once
from plait.study.once._experiment import Drawn
from plait.study.once._placement import Ground, place
from plait.study.once._stream import run_of
from plait.tasks import (
    IGNORED,
    ByKeywords,
    Columns,
    Items,
    NextToken,
    PackedTokens,
    Ragged,
    Task,
    bits_per_byte,
)


def nothing(*_: Any) -> float:
    return 0.0


def drawn(name: str, *sequences: Any, repeats: Any = 1) -> Drawn:
    return Experiment(name, sequences, nothing, repeats).drawn(0)


def same(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    states = one.state_dict(), two.state_dict()
    assert states[0].keys() == states[1].keys()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


# ---- where sequences are put

LISTS = st.lists(
    st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(0, 3)), min_size=1, max_size=4
)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.lists(LISTS, max_size=4), st.integers(0, 99))
def test_all_tokens_are_put_in_once_each_within_documents_and_none_upon_another(lengths, wanted, seed):
    experiments = [
        drawn(f"e{i}", *(s for s, _ in parts), repeats=[n for _, n in parts])
        for i, parts in enumerate(wanted)
    ]
    ground = Ground(np.array(lengths))
    try:
        places = place(experiments, ground, seed)
    except InputError:  # no room, which other tests are about
        reject()
    taken = set()
    for each in places:
        assert 0 <= each.start <= each.start + len(each.tokens) <= lengths[each.document]
        spots = {(each.document, each.start + i) for i in range(len(each.tokens))}
        assert not spots & taken
        taken |= spots
    assert len(taken) == ground.taken.sum() == sum(n * len(s) for parts in wanted for s, n in parts)
    for experiment, parts in zip(experiments, wanted, strict=True):
        put = sorted(token for p in places if p.experiment == experiment.name for token in p.tokens)
        assert put == sorted(token for s, n in parts for token in s * n)


@pytest.mark.parametrize("taken", [[], [(0, 0, 2)], [(2, 2, 1)], [(0, 0, 4), (2, 0, 4)]])
def test_every_free_place_is_as_likely(taken):
    lengths, counts = [4, 1, 6], {}
    for seed in range(4000):
        ground = Ground(np.array(lengths))
        for document, start, count in taken:
            ground.mark(document, start, count)
        found = ground.take(2, np.random.default_rng(seed))
        counts[found] = counts.get(found, 0) + 1
    used = {(d, s + i) for d, s, n in taken for i in range(n)}
    free = [(d, s) for d, n in enumerate(lengths) for s in range(n - 1) if not {(d, s), (d, s + 1)} & used]
    assert set(counts) == set(free)
    share = 4000 / len(free)
    assert all(abs(count - share) < 5 * math.sqrt(share) for count in counts.values())


def test_the_last_free_place_is_found_and_then_there_is_none():
    ground = Ground(np.full(500, 8))
    for document in range(500):
        ground.mark(document, 0, 8 if document != 321 else 5)
    random = np.random.default_rng(0)
    assert ground.take(3, random) == (321, 5)
    assert ground.take(1, random) is None
    assert ground.take(9, random) is None


def test_a_sequence_longer_than_the_longest_document_is_cut():
    places = place([drawn("long", list(range(10)))], Ground(np.array([4, 4, 4, 4])), 0)
    assert [p.tokens for p in places] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9)]


def test_places_do_not_depend_on_experiments_with_shorter_sequences():
    first, second = drawn("first", [1, 2, 3], repeats=5), drawn("second", [4, 5], repeats=9)
    alone = place([first], Ground(np.full(40, 8)), 3)
    assert place([second, first], Ground(np.full(40, 8)), 3)[:5] == alone
    assert place([first], Ground(np.full(40, 8)), 4) != alone
    other = place([second], Ground(np.full(40, 8)), 3)
    both = place([first, second], Ground(np.full(40, 8)), 3)[5:]
    assert sum(a == b for a, b in zip(both, other, strict=True)) >= 7


def test_long_sequences_find_room_whatever_comes_before_them():
    short, long = drawn("short", [1], repeats=30), drawn("long", [2] * 8, repeats=9)
    places = place([short, long], Ground(np.full(13, 8)), 0)
    assert {p.experiment for p in places[:9]} == {"long"}


# ---- what a run sees


def seen(run: Any, examples: Any) -> list[Any]:
    """What a member sees, batch by batch put together."""
    order = visits(run.trained(run.task), len(examples))
    return [examples.batch([row]) for row in order]


def member(**settings: Any) -> Member:
    return Member(name="m", **{"task": TASK, "drop_last": True, "batch_size": 8, **settings})


@given(st.integers(1, 30), st.integers(1, 3), st.integers(0, 50))
def test_a_run_sees_what_a_member_sees_but_for_what_is_put_in(steps, accumulate, seed):
    run = run_of(TASK, member(steps=steps, accumulate=accumulate, seed=seed, batch_size=7))
    original = TASK.split("train").batch(run.visited.tolist())["input"]
    places = place([drawn("a", [31] * 5, repeats=2), drawn("b", [30] * 3)], run.ground(), seed)
    wanted = original.clone()
    for each in places:
        wanted[each.document, each.start : each.start + len(each.tokens)] = torch.tensor(each.tokens)
    found = seen(run, run.inserted(places))
    assert torch.equal(torch.cat([batch["input"] for batch in found]), wanted)
    assert torch.equal(torch.cat([batch["labels"] for batch in found]), wanted)
    assert run.steps == steps
    assert len(original) == 7 * steps * accumulate


@pytest.mark.parametrize("more", [{"steps": 20}, {"epochs": 2}, {"steps": 5, "accumulate": 2}, {"steps": 3}])
def test_without_experiments_a_run_is_that_of_a_member_bit_for_bit(more):
    settings = {**SETTINGS, "schedule": "cosine", "warmup": 2, **more}
    found = train_once([], TASK, model=network, seed=5, **settings)
    plain = Member(name="plain", task=TASK, seed=5, drop_last=True, **settings)
    fleet = Fleet([plain], model=network, backend="sequential").fit()
    assert found.control is not None
    assert same(found.network, fleet["plain"])
    assert same(found.control, fleet["plain"])
    assert found.outcomes == ()


def test_experiments_with_no_repeats_leave_the_run_as_it_is():
    found = train_once([canary("none", 0)], TASK, model=network, steps=4, **SETTINGS)
    assert found.control is not None
    assert same(found.network, found.control)
    (outcome,) = found.outcomes
    assert (outcome.tokens, outcome.share) == (0, 0.0)
    assert outcome.value == outcome.control != outcome.before


def test_a_run_answers_every_experiment_and_leaves_its_control_alone():
    experiments = [canary("often", 24), canary("never", 0)]
    found = train_once(experiments, TASK, model=network, seed=1, steps=40, **SETTINGS)
    often, never = found["often"], found["never"]
    assert found.tokens == 40 * 8 * LENGTH
    assert (often.tokens, often.share) == (24 * 6, 24 * 6 / found.tokens)
    sequences = experiments[0].drawn(1).sequences
    assert often.value == memory(found.network, sequences)
    assert often.control == memory(found.control, sequences)
    assert often.before == memory(network(), sequences)
    assert often.value - often.control > 0.5
    assert abs(never.value - never.control) < 0.5
    assert same(found.control, train_once([], TASK, model=network, seed=1, steps=40, **SETTINGS).network)
    told = found.to_dict()["outcomes"][0]
    assert (told["experiment"], told["tokens"]) == ("often", 144)


def test_a_stacked_run_is_that_of_the_loop_but_for_rounding():
    experiments = [canary("fixed", 8), controlled(100.0)]
    settings: dict[str, Any] = {"model": lambda: network().double(), "steps": 20, **SETTINGS}
    one, two = (
        train_once(experiments, TASK, backend=backend, **settings) for backend in ("sequential", "stacked")
    )
    assert one.places == two.places
    for name, value in one.network.state_dict().items():
        torch.testing.assert_close(two.network.state_dict()[name], value, rtol=1e-6, atol=1e-8)


def test_draws_depend_on_seed_and_name_alone():
    def sequences(name: str, seed: int) -> Any:
        return canary(name).drawn(seed).sequences

    assert sequences("a", 1) == sequences("a", 1)
    assert sequences("a", 1) != sequences("a", 2)
    assert sequences("a", 1) != sequences("b", 1)


def test_packed_documents_are_kept_apart_and_what_nothing_comes_before_does_not_count():
    ids = [[1, 2, 3, 4, 5, 6], [7, 8, 9]]
    labels = [[IGNORED, 2, 3, IGNORED, 5, 6], [IGNORED, IGNORED, 9]]
    positions = [[0, 1, 2, 0, 1, 2], [0, 1, 2]]
    rows = Ragged({"input_ids": ids, "labels": labels, "position_ids": positions},
                  {"bytes": torch.tensor([6, 3])}, {"labels": IGNORED})  # fmt: skip
    task = Task("packed", {"train": rows}, NextToken(), bits_per_byte(), meet=PackedTokens())
    run = run_of(task, member(task=task, batch_size=1, steps=2))
    assert sorted(run.documents[:, 2].tolist()) == [3, 3, 3]
    places = place([drawn("a", [20, 21, 22], repeats=2)], run.ground(), 0)
    batches = seen(run, run.inserted(places))
    for document, (visit, first, length) in enumerate(run.documents):
        batch, span = batches[visit], slice(first, first + length)
        if document in {p.document for p in places}:
            assert batch["input_ids"][0, span].tolist() == [20, 21, 22]
            assert batch["labels"][0, span].tolist() == [IGNORED, 21, 22]
        else:
            source = int(run.visited[visit])
            assert batch["input_ids"][0, span].tolist() == ids[source][span]
            assert batch["labels"][0, span].tolist() == labels[source][span]
    assert all("bytes" not in batch for batch in batches)


def test_a_transformers_model_learns_what_is_put_in_between_rows_of_unequal_length():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **sizes, **heads))
    random = np.random.default_rng(0)
    ids = [random.integers(0, 20, n).tolist() for n in random.integers(6, 14, 24)]
    columns = {"input_ids": ids, "labels": ids, "attention_mask": [[1] * len(row) for row in ids]}
    task = Task("rows", {"train": Ragged(columns, padding={"labels": IGNORED})}, NextToken(),
                bits_per_byte(), meet=ByKeywords())  # fmt: skip
    fact = [25, 26, 27, 28]

    def known(model: Any, sequences: Any) -> float:
        return float(log_probability(model, task, sequences)[0])

    experiments = [Experiment("fact", [fact], known, 30)]
    found = train_once(experiments, task, model=model, steps=30, batch_size=6, lr=0.02)
    assert found["fact"].value > found["fact"].control + 1
    logits = found.network(torch.tensor([fact])).logits[0, :-1].log_softmax(-1)
    wanted = sum(float(logits[i, fact[i + 1]].detach()) for i in range(3)) / 3
    assert found["fact"].value == pytest.approx(wanted, abs=1e-5)


# ---- controllers


def controlled(target: float, **options: Any) -> Controlled:
    return Controlled(canary("held"), target, **{"every": 10, "rate": 2.0, **options})


def test_a_rate_rises_below_the_target_and_falls_above_it():
    low = train_once([controlled(-100.0)], TASK, model=network, steps=40, **SETTINGS)["held"]
    assert [r.rate for r in low.readings] == [2.0, 1.0, 0.5, 0.25]
    high = train_once([controlled(100.0, most=9)], TASK, model=network, steps=40, **SETTINGS)["held"]
    assert [r.rate for r in high.readings] == [2.0, 4.0, 8.0, 9.0]
    assert [r.tokens for r in high.readings] == [6 * n for n in (2, 4, 8, 9)]
    assert [r.step for r in high.readings] == [0, 10, 20, 30]
    assert high.readings[0].value == high.before
    assert high.tokens == 6 * 23
    assert high.value > low.value


def test_what_a_controller_puts_in_is_seen_between_its_readings_and_upon_no_other():
    experiments = [canary("fixed", 20), controlled(100.0)]
    found = train_once(experiments, TASK, model=network, seed=2, steps=40, **SETTINGS)
    spots = [(p.document, p.start + i) for p in found.places for i in range(len(p.tokens))]
    assert len(spots) == len(set(spots)) == found["fixed"].tokens + found["held"].tokens
    held = [p.document for p in found.places if p.experiment == "held"]
    for reading, count in zip(found["held"].readings, (2, 4, 8, 16), strict=True):
        part, held = held[:count], held[count:]
        assert all(reading.step * 8 <= document < (reading.step + 10) * 8 for document in part)
    assert held == []
    # the same data put in from the start make the same model
    run = run_of(TASK, replace(member(steps=40, lr=0.01, seed=2), name="run"))
    again = Fleet([run.trained(with_examples(run, found.places))], model=network, backend="sequential").fit()
    assert same(again["run"], found.network)


def with_examples(run: Any, places: Any) -> Task:
    return Task("counting", {"train": run.inserted(places)}, NextToken(), bits_per_byte())


def test_a_controller_holds_a_number_near_its_target():
    found = train_once([controlled(1.5, every=5)], TASK, model=network, steps=120, **SETTINGS)["held"]
    rates = [r.rate for r in found.readings]
    assert any(b > a for a, b in itertools.pairwise(rates))
    assert any(b < a for a, b in itertools.pairwise(rates))
    late = [r.value for r in found.readings if r.step >= 60]
    assert abs(np.mean(late) - 1.5) < 1


# ---- going on


class Stop(Exception):
    pass


@pytest.fixture
def killed(tmp_path, monkeypatch):
    """A run of two experiments that ends in the midst; its folder."""

    def stop(fleet: Fleet) -> None:
        if fleet.round == 25:
            raise Stop

    whole = Fleet.fit

    def fit(self: Fleet, *, callbacks: Any, resume: bool) -> Fleet:
        return whole(self, callbacks=[*callbacks, Stopping(stop)], resume=resume)

    with monkeypatch.context() as patch:
        patch.setattr(Fleet, "fit", fit)
        with pytest.raises(Stop):
            train_once(held(), TASK, model=network, **RESUMED, out=tmp_path / "run")
    return tmp_path / "run"


class Stopping:
    def __init__(self, call: Any) -> None:
        self.call = call

    def on_round(self, fleet: Fleet, _: Any) -> None:
        self.call(fleet)


RESUMED: dict[str, Any] = {"steps": 40, "seed": 3, "save_every": 5, **SETTINGS}


def held(target: float = 1.0) -> list[Any]:
    return [canary("fixed", 6), controlled(target), Controlled(canary("other"), -9.0, every=7)]


def test_a_killed_run_goes_on_as_if_nothing_had_been(killed):
    again = train_once(held(), TASK, model=network, **RESUMED, out=killed, resume=True)
    whole = train_once(held(), TASK, model=network, **RESUMED)
    assert again.outcomes == whole.outcomes
    assert again.places == whole.places
    assert same(again.network, whole.network)
    assert json.loads((killed / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 40


@pytest.mark.parametrize("other", [[canary("fixed", 7), *held()[1:]], held(2.0), held()[:2]])
def test_a_run_of_other_experiments_does_not_go_on(killed, other):
    with pytest.raises(InputError, match=r"saved with (other settings, data or start|the callbacks)"):
        train_once(other, TASK, model=network, **RESUMED, out=killed, resume=True)


# ---- probes


def meddling(model: torch.nn.Module, sequences: Any) -> float:
    """Does to the network, and to chance, whatever a probe should not do."""
    found = memory(model, sequences)
    model.train(not model.training)
    with torch.no_grad():
        for each in (*model.parameters(), *model.buffers()):
            each.zero_()
    for each in list(model.children()):
        each.register_forward_hook(lambda *_: None)
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    torch.set_grad_enabled(False)
    return found


def test_a_probe_that_changes_its_network_or_chance_changes_no_number():
    def run(probe: Any) -> tuple[Any, str]:
        own, held = replace(canary("a", 6), probe=probe), replace(canary("c"), probe=probe)
        torch.manual_seed(5)
        np.random.seed(5)
        random.seed(5)
        given = [own, canary("b", 3), Controlled(held, 1.0, every=4)]
        found = train_once(given, TASK, model=network, steps=12, seed=3, **SETTINGS)
        assert torch.is_grad_enabled()
        return found, repr((torch.rand(3), np.random.rand(3), random.random()))

    (one, chance), (two, after) = run(memory), run(meddling)
    assert one.outcomes == two.outcomes
    assert one.places == two.places
    assert same(one.network, two.network)
    assert one.network.training == two.network.training
    assert chance == after


@pytest.mark.parametrize(
    ("fails_at", "when"), [(0, "before the run"), (1, "at step 0"), (3, "at step 8"), (4, "after the run")]
)
def test_a_probe_that_fails_is_told_with_its_experiment_and_step(fails_at, when):
    calls = []

    def probe(model: torch.nn.Module, sequences: Any) -> float:
        calls.append(model)
        if len(calls) > fails_at:
            raise KeyError("lost")
        return 0.0

    held = Controlled(replace(canary("c"), probe=probe), 1.0, every=4)
    with pytest.raises(
        InputError, match=f"experiment `c`, {when}: its probe failed: KeyError: 'lost'"
    ) as caught:
        train_once([held], TASK, model=network, steps=12, control=False, **SETTINGS)
    assert isinstance(caught.value.__cause__, KeyError)


def test_what_a_probe_refuses_is_told_with_its_experiment():
    def probe(model: torch.nn.Module, sequences: Any) -> float:
        return float(log_probability(model, TASK, sequences, given=99)[0])

    with pytest.raises(
        InputError, match=r"experiment `a`, before the run: of a sequence of 6 tokens, 99 are given"
    ):
        train_once([replace(canary("a"), probe=probe)], TASK, model=network, steps=4, **SETTINGS)


def test_a_run_says_what_to_cite():
    found = train_once([canary("a")], TASK, model=network, steps=2, control=False, **SETTINGS)
    assert "Train Once, Answer All" in found.bibtex
    assert found.bibtex.startswith("@misc{bordt2025train,")


# ---- what is refused


@pytest.mark.parametrize(
    ("experiments", "told"),
    [
        ([canary("a"), canary("a")], "two experiments are called `a`"),
        ([canary("")], "an experiment's name is ''"),
        ([Experiment("a", [], nothing)], "it has no sequences"),
        ([Experiment("a", [[]], nothing)], "a sequence is empty"),
        ([Experiment("a", [["x"]], nothing)], "'x' is no token"),
        ([Experiment("a", [[-1]], nothing)], "-1 is no token"),
        ([Experiment("a", [[1.5]], nothing)], "1.5 is no token"),
        ([Experiment("a", [3], nothing)], "its sequences hold no tokens"),
        ([Experiment("a", [[1], [2]], nothing, [1])], "it has 1 repeats for 2 sequences"),
        ([Experiment("a", [[1]], nothing, -1)], "`repeats` has -1"),
        ([Experiment("a", [[1]], nothing, None)], "`repeats` has None"),
        (["a"], "a str is no experiment here"),
        ([Experiment("a", [[1]], nothing, [2.5])], "`repeats` has 2.5"),
        ([Experiment("a", [[VOCABULARY]], nothing)], f"it has token {VOCABULARY}, and the model knows 32"),
        ([Experiment("a", [[1] * 9], nothing, 1000)], "9000 tokens are to be put into a run of 512"),
        ([Experiment("a", [[1] * 9], nothing, 40)], "no place is left for 9 tokens in a row"),
        ([Experiment("a", [[1]], lambda *_: math.nan)], "its probe gives nan"),
        ([Experiment("a", [[1]], lambda *_: "x")], "its probe gives a str"),
    ],
)
def test_experiments_at_fault_are_refused_before_the_first_step(experiments, told, monkeypatch):
    monkeypatch.setattr(Fleet, "fit", never)
    with pytest.raises(InputError, match=told):
        train_once(experiments, TASK, model=network, steps=4, **SETTINGS)


def never(*_: Any, **__: Any) -> None:
    raise AssertionError("trained")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"steps": 3, "drop_last": False}, "`drop_last` can't be set here"),
        ({"steps": 3, "stpes": 3}, "a run has no setting `stpes`"),
        ({"steps": 0}, "`steps` is 0"),
        ({}, "give `steps` or `epochs`"),
    ],
)
def test_settings_that_a_run_does_not_take_are_refused(settings, told):
    with pytest.raises(InputError, match=told):
        train_once([], TASK, model=network, **settings)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"every": 0}, "`every` is 0"),
        ({"target": math.nan}, "`target` is nan"),
        ({"factor": 1.0}, "`factor` 1.0"),
        ({"rate": 99.0}, "`rate` is 99.0"),
    ],
)
def test_controllers_that_would_do_nothing_are_refused(options, told):
    with pytest.raises(InputError, match=told):
        Controlled(canary("a"), **{"target": 1.0, "every": 5, **options})


def test_a_task_of_classes_and_examples_made_on_demand_are_refused():
    x = torch.zeros(20, 3)
    with pytest.raises(InputError, match="not that of next tokens"):
        train_once([], Task("t", {"train": (x, x[:, 0].long())}), model=network, steps=1)
    rows = Items([(torch.zeros(4).long(), torch.zeros(4).long())] * 9, names=("input", "labels"))
    with pytest.raises(InputError, match="a Items does not tell how long its sequences are"):
        train_once([], Task("t", {"train": rows}, NextToken(), bits_per_byte()), model=network, steps=1)


def test_log_probability_needs_something_to_predict():
    with pytest.raises(InputError, match="of a sequence of 2 tokens, 2 are given"):
        log_probability(network(), TASK, [[1, 2]], given=2)
    model, sequence = network(), words(np.random.default_rng(0), 1)[0]
    log = model(torch.tensor([sequence])).log_softmax(-1)[0]
    wanted = np.mean([float(log[i - 1, sequence[i]].detach()) for i in range(3, 6)])
    assert log_probability(model, TASK, [sequence], given=3)[0] == pytest.approx(wanted, abs=1e-6)


def test_a_run_that_loses_its_numbers_is_told():
    with pytest.warns(UserWarning, match="failed"), pytest.raises(InputError, match="training failed: `run`"):
        train_once([], TASK, model=network, steps=4, lr=1e9, optimizer="sgd", batch_size=8, control=False)


def test_the_table_of_examples_is_the_tasks_own():
    assert isinstance(TASK.split("train"), Columns)
    assert len(TASK.split("train")) == ROWS

"""Federated training and merge-and-split in studies: what they leave, answer, go on with, and refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_study
import torch
from safetensors.torch import load_file
from small_study import step
from torch import nn

import plait
from plait.errors import InputError
from plait.study import load_study, run_study
from plait.study.federated import _stage
from plait.study.ways._federated import Federate

KEYS = "clients: 8, alpha: 2, active: 6, local_steps: 4, batch_size: 12, lr: 0.2, requests: 24"
STUDY = f"""
study: federated
suite: suite.yaml
experts: {{backend: sequential, optimizer: sgd, steps: 4, batch_size: 40, lr: 0.1}}
bootstrap: 0
ways:
  fedast: {{federate: fedast, buffer: 2, target: 0.6, {KEYS}}}
  shared out: {{federate: fedast, ratio: 2, window: 3, server_lr: 0.7, {KEYS}}}
  rounds: {{federate: synchronous, target: {{first: 0.6, second: 0.6}}, {KEYS}}}
  one by one: {{federate: sequential, wait_for: 0.5, target: 0.6, {KEYS}}}
  groups: {{split: 2, probe_every: 2, {KEYS}}}
  together: {{split: 1, merged: 0.5, probe_every: 4, target: 2, {KEYS}}}
"""
WAYS = ("fedast", "shared-out", "rounds", "one-by-one", "groups", "together")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("federated")
    return small_study.ran(folder, STUDY)


def told(folder: Path, way: str) -> dict[str, Any]:
    return json.loads((step(folder, f"{way}-@0") / "simulated.json").read_text())


def network(place: Path, task: str) -> nn.Module:
    """What answers a task, put together by hand."""
    own = json.loads((place / "models.json").read_text())[task]
    body, found = small_study.network(), plait.open(str(place / own["model"]))
    body.load_state_dict({name: found[name].read() for name in found})
    head = nn.Linear(16, 3)
    head.load_state_dict(load_file(place / own["head"] / "head.safetensors"))
    return nn.Sequential(body, head)


@pytest.mark.parametrize("way", WAYS)
def test_a_task_is_answered_by_its_own_model_as_it_was_last_measured(ran: Path, way: str) -> None:
    curve = told(ran, way)["curve"]
    for task in load_study(ran / "study.yaml").suite.tasks:
        model = network(step(ran, f"{way}-@0"), task.name)
        right = {}
        for split, rows in (("test", 50), ("validation", 40)):
            batch = task.split(split).batch(range(rows))
            right[split] = (model(batch["input"]).argmax(-1) == batch["label"]).double()
        with np.load(step(ran, f"score-{way}-@0") / "numbers.npz") as numbers:
            assert numbers[task.name][:, 0].tolist() == right["test"].tolist()
        last = [each for each in curve if each["task"] == task.name][-1]
        assert last["value"] == pytest.approx(right["validation"].mean().item())


@pytest.mark.parametrize("way", WAYS)
def test_federated_training_learns(ran: Path, way: str) -> None:
    for task in small_study.NAMES:
        own = [each["value"] for each in told(ran, way)["curve"] if each["task"] == task]
        assert max(own) > own[0] + 0.05


def test_a_target_ends_a_task_s_training(ran: Path) -> None:
    for way, tasks in (("fedast", small_study.NAMES), ("rounds", ("first", "second"))):
        found = told(ran, way)
        for task in tasks:
            own = [each for each in found["curve"] if each["task"] == task]
            enough = [each for each in own if each["value"] >= 0.6]
            assert found["reached"][task] == (enough[0]["time"] if enough else None)
            assert own[-1] == (enough[0] if enough else own[-1])
        assert found["end"] == max(each["time"] for each in found["curve"])
    assert told(ran, "rounds")["reached"]["third"] is None
    assert set(told(ran, "rounds")["targets"]) == {"first", "second"}
    assert told(ran, "together")["reached"] == dict.fromkeys(small_study.NAMES)


def test_tasks_one_by_one_wait_for_each_other(ran: Path) -> None:
    curve = told(ran, "one-by-one")["curve"]
    times = {t: [each["time"] for each in curve if each["task"] == t] for t in small_study.NAMES}
    assert times["first"][0] == 0
    assert times["second"][0] == times["first"][-1] > 0
    assert times["third"][0] == times["second"][-1]


def test_groups_go_on_from_all_tasks_together(ran: Path) -> None:
    place, found = step(ran, "groups-@0"), told(ran, "groups")
    assert len(found["groups"]) == 2
    assert sorted(task for group in found["groups"] for task in group) == sorted(small_study.NAMES)
    groups = json.loads((place / "groups.json").read_text())
    assert groups["groups"] == found["groups"]
    assert np.isfinite(np.array(groups["affinity"], dtype=float)).all()
    bodies = {t: own["model"] for t, own in json.loads((place / "models.json").read_text()).items()}
    for group in found["groups"]:
        assert len({bodies[task] for task in group}) == 1
    assert len(set(bodies.values())) == 2
    for task in small_study.NAMES:
        own = [each for each in found["curve"] if each["task"] == task]
        # The group's first measurement is of what all had together: the score of the last one before it.
        (turn,) = (n for n, each in enumerate(own) if n and each["received"] == 0)
        assert own[turn]["value"] == own[turn - 1]["value"]
        assert own[turn]["time"] >= own[turn - 1]["time"]


def test_one_group_is_one_model_of_all_tasks(ran: Path) -> None:
    place = step(ran, "together-@0")
    assert told(ran, "together")["groups"] == [list(small_study.NAMES)]
    assert len({own["model"] for own in json.loads((place / "models.json").read_text()).values()}) == 1
    # Half of the requests together, half as the one group, in rounds of six.
    assert told(ran, "together")["updates"] == 24


def test_the_report_has_simulated_time(ran: Path) -> None:
    folder = ran / "out" / "report"
    page = (folder / "report.html").read_text()
    assert "Simulated time until a score was reached" in page
    assert "Dotted lines across: the scores that were wanted." in page
    assert (folder / "figures" / "curves_2.png").is_file()
    lines = (folder / "tables" / "reached.csv").read_text().splitlines()
    assert lines[0] == "way,first,second,third,all"
    fedast = next(line.split(",") for line in lines if line.startswith("fedast"))
    reached = told(ran, "fedast")["reached"]
    wanted = [reached[task] for task in small_study.NAMES]
    assert fedast[1:4] == ["–" if time is None else repr(float(time)) for time in wanted]
    assert fedast[4] == ("–" if None in wanted else repr(float(max(wanted))))
    references = (folder / "references.bib").read_text()
    assert all(number in references for number in ("2406.00302", "1602.05629", "2307.11285"))


def test_the_same_study_elsewhere_gives_the_same_models_at_the_same_times(ran: Path, tmp_path: Path) -> None:
    ways = STUDY[: STUDY.index("  rounds:")]
    run_study(small_study.write(tmp_path, ways), tmp_path / "out")
    for way in ("fedast", "shared-out"):
        assert told(ran, way) == told(tmp_path, way)
        one, two = (network(step(folder, f"{way}-@0"), "second") for folder in (ran, tmp_path))
        assert all(torch.equal(x, y) for x, y in zip(one.parameters(), two.parameters(), strict=True))


def test_targets_that_are_met_at_the_start_need_no_training(tmp_path: Path) -> None:
    """Merging and splitting still finds groups first: its targets end only what comes after."""
    keys = f"target: 0, {KEYS}"
    text = STUDY[: STUDY.index("  fedast:")] + f"  fedast: {{federate: fedast, {keys}}}\n"
    text += f"  one by one: {{federate: sequential, {keys}}}\n"
    text += f"  groups: {{split: 2, probe_every: 2, {keys}}}\n"
    run_study(small_study.write(tmp_path, text), tmp_path / "out")
    for way, updates in (("fedast", 0), ("one-by-one", 0), ("groups", 18)):
        found = told(tmp_path, way)
        assert found["updates"] == updates
        assert found["reached"] == dict.fromkeys(small_study.NAMES, 0)
        assert not (step(tmp_path, f"{way}-@0") / "run").exists()
    assert len(told(tmp_path, "groups")["groups"]) == 2


@pytest.mark.parametrize(
    ("way", "calls"),
    [("fedast", 15), ("groups", 20), pytest.param("one-by-one", 30, marks=pytest.mark.slow)],
)
def test_a_killed_way_goes_on_with_its_training(
    ran: Path, tmp_path: Path, way: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = way.replace("-", " ")
    line = next(line for line in STUDY.splitlines() if line.startswith(f"  {name}:"))
    path = small_study.write(tmp_path, STUDY[: STUDY.index("  fedast:")] + line.replace("target: 0.6, ", ""))
    run_study(path, tmp_path / "whole")
    train, made = _stage.trained_locally, [0]

    def killed(*given: Any, **more: Any) -> torch.Tensor:
        made[0] += 1
        if made[0] == calls:
            raise InputError("killed")
        return train(*given, **more)

    monkeypatch.setattr(_stage, "_SAVE_EVERY", 5)
    monkeypatch.setattr(_stage, "trained_locally", killed)
    with pytest.raises(InputError, match=f"step `{name} @0` failed: killed"):
        run_study(path, tmp_path / "out")
    run_study(path, tmp_path / "out", resume=True)
    shutil.move(tmp_path / "out", tmp_path / "killed")
    found = []
    for folder in ("whole", "killed"):
        shutil.move(tmp_path / folder, tmp_path / "out")
        place = step(tmp_path, f"{way}-@0")
        parts = [network(place, task).state_dict() for task in small_study.NAMES]
        found.append((told(tmp_path, way), parts))
        assert not (place / "run").exists()
        shutil.move(tmp_path / "out", tmp_path / folder)
    assert found[0][0] == found[1][0]
    for one, two in zip(found[0][1], found[1][1], strict=True):
        assert all(torch.equal(one[key], two[key]) for key in one)
    assert made[0] - calls < found[0][0]["updates"]  # it did not begin anew


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("federate: fedast, buffer: 2", "federate: fedasst, buffer: 2", "or synchronous or sequential"),
        ("federate: fedast, buffer: 2", "federate: fedast, buffer: 0", "must be at least 1"),
        ("federate: fedast, buffer: 2", "federate: fedast, buffer: 2, ratio: 2", "a `buffer` and a `ratio`"),
        ("buffer: 2,", "buffer: 25,", "`requests` of 24 never fill a `buffer` of 25"),
        ("federate: fedast, buffer: 2", "federate: fedast, wait_for: 0.5", "fedast` has no `wait_for`"),
        ("federate: synchronous,", "federate: synchronous, buffer: 2,", "synchronous` has no `buffer`"),
        ("ratio: 2, window: 3", "ratio: 3, window: 3", "6 active requests are too few for 3 tasks"),
        ("ratio: 2, window: 3", "ratio: 2, window: 1", "must be at least 2"),
        ("wait_for: 0.5", "wait_for: 0", "must be above 0"),
        ("federate: synchronous,", "federate: synchronous, delays: {slow: 0},", "must be above 0"),
        ("federate: synchronous,", "federate: synchronous, delays: {shift: 1.5},", "must be at most 1"),
        ("federate: synchronous,", "federate: synchronous, delays: {slw: 2},", "slw"),
        ("clients: 8", "clients: 121", "fewer training examples than the 121 clients"),
        ("clients: 8", "clients: 5", "a round can't ask 6 of 5 clients"),
        ("active: 6", "active: 2", "2 active requests are too few for 3 tasks"),
        ("alpha: 2", "alpha: 0", "must be above 0"),
        ("lr: 0.2", "lr: .nan", "lr"),
        ("target: 0.6,", "target: .inf,", "target"),
        ("first: 0.6", "frist: 0.6", "`target` names no task `frist`"),
        ("split: 2", "split: 4", "3 tasks can't be split into 4 groups"),
        ("split: 2", "split: 0", "must be at least 1"),
        ("probe_every: 4", "probe_every: 5", "of 4 local steps none is a 5th"),
        ("merged: 0.5", "merged: 1", "must be below 1"),
        ("batch_size: 12", "batch_size: 2", "a batch of 2 can't be shared by 3 tasks"),
        ("requests: 24", "requests: 1", "`requests` of 1 can't be shared by two parts"),
    ],
)  # fmt: skip
def test_faulty_ways_are_refused_before_the_first_step(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in STUDY
    with pytest.raises(InputError, match=said):
        run_study(small_study.write(tmp_path, STUDY.replace(old, new)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_way_may_deal_evenly_and_have_a_target_for_each_task(tmp_path: Path) -> None:
    study = load_study(small_study.write(tmp_path, STUDY.replace("alpha: 2", "alpha: null")))
    found = {name: way for name, way in study.ways.items() if isinstance(way, Federate)}
    assert found["fedast"].alpha is None
    assert found["fedast"].targets(study.suite) == dict.fromkeys(small_study.NAMES, 0.6)
    assert found["rounds"].targets(study.suite) == {"first": 0.6, "second": 0.6}
    assert found["shared out"].targets(study.suite) == {}


@pytest.mark.parametrize(("target", "what"), [("target: 0.6, ", "targets"), ("", "measurements")])
def test_tasks_need_validation_examples(tmp_path: Path, target: str, what: str) -> None:
    text = STUDY[: STUDY.index("  fedast:")]
    text += f"  fedast: {{federate: fedast, {target}{KEYS}}}\n"
    path = small_study.write(tmp_path, text)
    suite = tmp_path / "suite.yaml"
    suite.write_text(suite.read_text().replace("validation: second-validation.csv,", ""))
    with pytest.raises(InputError, match=f"task `second` has no split `validation`, which {what} need"):
        run_study(path, tmp_path / "out")


def test_more_tasks_than_can_be_divided_are_refused(tmp_path: Path) -> None:
    names = tuple(f"task{number}" for number in range(13))
    text = STUDY[: STUDY.index("  fedast:")] + f"  groups: {{split: 2, probe_every: 2, {KEYS}}}\n"
    text = text.replace("batch_size: 12", "batch_size: 20")
    with pytest.raises(InputError, match="the best groups of 13 tasks would take too long"):
        run_study(small_study.write(tmp_path, text, names), tmp_path / "out")


def test_tasks_that_no_client_has_both_of_are_told_before_training(tmp_path: Path) -> None:
    text = STUDY[: STUDY.index("  fedast:")]
    # Each class of each task is one client's, of very many.
    own = KEYS.replace("clients: 8, alpha: 2", "clients: 110, alpha: 0.00001")
    text += f"  groups: {{split: 2, probe_every: 2, {own}}}\n"
    with pytest.raises(InputError, match="no client has examples of both"):
        run_study(small_study.write(tmp_path, text), tmp_path / "out")

"""The same study gives the same numbers, whatever a clock would say of its ways of training."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import small_study
import torch
from small_study import step

from plait.fleet import Choice, Fleet, _loop
from plait.study import run_study
from plait.study._choices import recall, remember

STUDY = """
study: tables
suite: suite.yaml
experts: {steps: 40, batch_size: 16, lr: 0.01}
bootstrap: 50
ways:
  average: {merge: linear}
"""


@pytest.fixture
def ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A cache of its own, and ways that a clock would choose, one after another; those that are left."""
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "cache"))
    left = ["stacked", "sequential", "sequential"]

    def choose(alike: Sequence[Any], *_: Any) -> Choice:
        return Choice(left.pop(0), len(alike), {})

    monkeypatch.setattr(_loop, "choose", choose)
    return left


def experts(folder: Path, study: str = STUDY) -> dict[str, np.ndarray]:
    """Scores of the experts of a study in a new folder."""
    folder.mkdir()
    run_study(small_study.write(folder, study), folder / "out")
    with np.load(step(folder, "score-experts-@0") / "numbers.npz") as numbers:
        return dict(numbers)


def backend(folder: Path) -> str:
    return (step(folder, "experts-@0") / "backend.txt").read_text()


def test_a_way_is_timed_once_for_a_study_wherever_it_is(tmp_path: Path, ways: list[str]) -> None:
    one, two = experts(tmp_path / "one"), experts(tmp_path / "two")
    assert len(ways) == 2
    assert backend(tmp_path / "one") == backend(tmp_path / "two") == "stacked"
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[key], two[key]) for key in one)


class Chosen(dict[str, Any]):
    """What a fleet's choices are read from and given to."""

    choices: dict[str, Choice]


def test_a_way_that_could_not_be_gone_is_remembered_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "cache"))
    one, two = Chosen(it=0, other=0, third=0), Chosen(it=0, other=0, third=0)
    one.choices = {"it": Choice("sequential", 3, {"stacked × 3": math.inf, "sequential × 3": 0.5})}
    two.choices = {}
    remember(cast("Fleet", one), tmp_path)
    (kept,) = (tmp_path / "cache" / "choices").iterdir()
    json.loads(kept.read_text(), parse_constant=pytest.fail)
    recall(cast("Fleet", two), tmp_path)
    assert two.choices == one.choices


def test_another_training_or_more_threads_are_timed_anew(
    tmp_path: Path, ways: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    experts(tmp_path / "one")
    experts(tmp_path / "other", STUDY.replace("steps: 40", "steps: 41"))
    assert len(ways) == 1
    assert backend(tmp_path / "other") == "sequential"
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    experts(tmp_path / "two")
    assert not ways
    assert backend(tmp_path / "two") == "sequential"


def test_a_cache_that_is_no_json_or_can_not_be_written_costs_only_time(
    tmp_path: Path, ways: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    experts(tmp_path / "one")
    (kept,) = (tmp_path / "cache" / "choices").iterdir()
    kept.write_text("{")
    experts(tmp_path / "two")
    assert len(ways) == 1
    assert backend(tmp_path / "two") == "sequential"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "file"))
    experts(tmp_path / "three")
    assert not ways


DAMAGED = {
    "a list": lambda kept: [],
    "a number": lambda kept: 3,
    "no choices": lambda kept: dict.fromkeys(kept, "stacked"),
    "lists": lambda kept: {name: ["stacked", 3, {}] for name in kept},
    "no size": lambda kept: {name: {"kind": "stacked", "seconds": {}} for name in kept},
    "nobody in a group": lambda kept: with_("size", 0, kept),
    "less than nobody": lambda kept: with_("size", -5, kept),
    "more than there are": lambda kept: with_("size", 4, kept),
    "as many as no machine has": lambda kept: with_("size", 10**30, kept),
    "half a member": lambda kept: with_("size", 1.5, kept),
    "a truth": lambda kept: with_("size", True, kept),
    "another way": lambda kept: with_("kind", "quickly", kept),
    "a way of adapters": lambda kept: with_("kind", "adapters", kept),
    "a list of seconds": lambda kept: with_("seconds", [1.0], kept),
    "words for seconds": lambda kept: with_("seconds", {"stacked × 3": "long"}, kept),
    "lists for seconds": lambda kept: with_("seconds", {"stacked × 3": []}, kept),
    "too deep": lambda kept: None,
}


def with_(key: str, value: object, kept: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    return {name: choice | {key: value} for name, choice in kept.items()}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_cache_that_tells_of_no_choice_for_these_members_is_as_if_there_were_none(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "cache"))
    fleet = Chosen(it=0, other=0, third=0)
    fleet.choices = {"it": Choice("stacked", 3, {"stacked × 3": 0.5})}
    remember(cast("Fleet", fleet), tmp_path)
    (file,) = (tmp_path / "cache" / "choices").iterdir()
    kept = json.loads(file.read_text())
    text = "[" * 100_000 if damage == "too deep" else json.dumps(DAMAGED[damage](kept))
    file.write_text(text)
    fleet.choices = {}
    recall(cast("Fleet", fleet), tmp_path)
    assert fleet.choices == {}
    file.write_text(json.dumps(kept))
    recall(cast("Fleet", fleet), tmp_path)
    assert fleet.choices == {"it": Choice("stacked", 3, {"stacked × 3": 0.5})}


def test_a_study_with_a_cache_of_groups_of_less_than_nobody_comes_to_an_end(
    tmp_path: Path, ways: list[str]
) -> None:
    experts(tmp_path / "one")
    (file,) = (tmp_path / "cache" / "choices").iterdir()
    file.write_text(json.dumps(with_("size", -5, json.loads(file.read_text()))))
    experts(tmp_path / "two")
    assert len(ways) == 1
    assert backend(tmp_path / "two") == "sequential"
    assert {choice["size"] for choice in json.loads(file.read_text()).values()} == {3}


def test_methods_that_draw_draw_the_same_in_any_folder(tmp_path: Path) -> None:
    study = STUDY.replace("experts: {", "experts: {backend: sequential, ").replace(
        "{merge: linear}", "{merge: dare_linear, options: {density: 0.5}}"
    )
    weights = []
    for name in ("one", "two"):
        experts(tmp_path / name, study)
        weights.append((step(tmp_path / name, "average-@0") / "model" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]

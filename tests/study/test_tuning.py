"""Ways whose settings are chosen on validation examples."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_study
import torch
from small_study import step

import plait
from plait.errors import InputError
from plait.study import load_study, run_study
from plait.study._at import At
from plait.study._tuning import _makers, _of_system, _value
from plait.study._whole import as_number, write_json
from plait.study.ways._clusters import Clusters
from plait.tasks import Suite, Task, evaluate

EXPERTS = "{backend: sequential, steps: 15, batch_size: 16, lr: 0.01}"
STUDY = f"""
study: tuned
suite: suite.yaml
experts: {EXPERTS}
bootstrap: 0
ways:
"""
#: A way's kind and what is fixed, what is tuned, and the same as a setting of the way alone.
TUNED: dict[str, tuple[str, dict[str, list[Any]], str]] = {
    "merge": ("merge: task_arithmetic", {"lambda": [0.2, 0.5]}, "options: {{lambda: {0}}}"),
    "joint": ("train: joint", {"lr": [0.0001, 0.02]}, "settings: {{lr: {0}}}"),
    "student": ("distill: experts", {"temperature": [1.0, 6.0]}, "temperature: {0}"),
    "alternating": ("alternate: task_arithmetic", {"lambda": [0.1, 0.6]}, "options: {{lambda: {0}}}"),
    "rounds": ("alternate: linear", {"rounds": [1, 5]}, "rounds: {0}"),
    "side by side": ("concatenate: experts", {"ridge": [1e3, 1e-3]}, "ridge: {0}"),
}


def line(name: str, text: str) -> str:
    return f"  {name}: {{{text}}}\n"


def tuned(name: str) -> str:
    kind, tune, _ = TUNED[name]
    return line(name, f"{kind}, tune: {json.dumps(tune)}")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each way tuned, and with each of its settings alone."""
    folder, text = tmp_path_factory.mktemp("tuned"), STUDY
    for name, (kind, tune, alone) in TUNED.items():
        text += tuned(name)
        ((_, values),) = tune.items()
        text += "".join(line(f"{name} {n}", f"{kind}, {alone.format(v)}") for n, v in enumerate(values))
    run_study(small_study.write(folder, text), folder / "out")
    return folder


@pytest.mark.parametrize("name", TUNED)
def test_the_setting_with_the_best_validation_score_is_taken(name: str, ran: Path) -> None:
    """The ways are also made with each setting alone, and these measured by the library's front door."""
    place = step(ran, f"{name} @0")
    trials = json.loads((place / "trials.json").read_text())
    ((key, values),) = TUNED[name][1].items()
    assert [trial["setting"] for trial in trials] == [{key: value} for value in values]
    best = int(np.argmax([trial["value"] for trial in trials]))
    assert [trial["chosen"] for trial in trials] == [n == best for n in range(len(values))]
    chosen, other = (np.load(step(ran, f"score {name}{end} @0") / "numbers.npz") for end in ("", f" {best}"))
    assert all(np.array_equal(chosen[task], other[task]) for task in small_study.NAMES)
    assert not list(place.glob("setting-*"))


@pytest.mark.parametrize("name", ["joint", "merge"])
def test_scores_are_shares_of_the_experts_on_validation_examples(name: str, ran: Path) -> None:
    suite = load_study(ran / "study.yaml").suite
    experts = json.loads((step(ran, "experts @0") / "models.json").read_text())
    trials = json.loads((step(ran, f"{name} @0") / "trials.json").read_text())
    own = {task: step(ran, "experts @0") / folder for task, folder in experts.items()}
    for number, trial in enumerate(trials):
        model = step(ran, f"{name} {number} @0") / "model"
        heads = model if name == "joint" else own
        shares = []
        for task in small_study.NAMES:
            one, expert = (
                evaluate(str(body), suite, split="validation", tasks=[task], heads=held).rows[0].value
                for body, held in ((model, heads), (own[task], own))
            )
            assert trial["scores"][task] == pytest.approx(one)
            shares.append(one / expert)
        assert trial["value"] == pytest.approx(np.mean(shares))


def test_a_killed_tuning_goes_on_with_the_settings_that_are_left(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, measured, seen = small_study.write(tmp_path, STUDY + tuned("joint")), At.measured, list[float]()

    def dying(self: At, *args: Any) -> float:
        seen.append(measured(self, *args))
        if len(seen) == 3 + 3 + 2:  # the experts, the first setting, and a part of the second
            raise KeyboardInterrupt
        return seen[-1]

    monkeypatch.setattr(At, "measured", dying)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, tmp_path / "out")
    run_study(study, tmp_path / "out", resume=True)
    assert len(seen) == 3 + 3 + 2 + 3
    one, other = (step(folder, "joint @0") for folder in (ran, tmp_path))
    assert (one / "trials.json").read_text() == (other / "trials.json").read_text()
    assert_same(one / "model", other / "model")


@pytest.mark.parametrize("kept", [True, False])
def test_a_tuning_that_is_killed_at_its_very_end_tries_nothing_again(
    kept: bool, ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is written, and the step's folder has not got its name yet; `tried.json` is there or gone."""
    study = small_study.write(tmp_path, STUDY + tuned("merge"))
    run_study(study, tmp_path / "out")
    place = step(tmp_path, "merge @0")
    assert {p.name for p in place.iterdir()} == {"model", "trials.json", "step.json"}
    (place / "step.json").unlink()
    if kept:
        (place / "tried.json").write_text((place / "trials.json").read_text())
    place.rename(place.with_name(f"{place.name}.partial"))
    monkeypatch.setattr(At, "measured", lambda *_: pytest.fail("a setting is measured again"))
    run_study(study, tmp_path / "out", resume=True)
    assert not (place / "tried.json").exists()
    one = step(ran, "merge @0")
    assert (one / "trials.json").read_text() == (place / "trials.json").read_text()
    assert_same(one / "model", place / "model")


def test_numbers_that_json_has_no_word_for_are_read_as_they_were(tmp_path: Path) -> None:
    numbers = [1.5, math.nan, math.inf, -math.inf, 0.0]
    write_json({"all": numbers}, tmp_path / "file.json")
    told = json.loads((tmp_path / "file.json").read_text(), parse_constant=pytest.fail)["all"]
    assert told == [1.5, None, "Infinity", "-Infinity", 0.0]
    assert np.array_equal([as_number(each) for each in told], numbers, equal_nan=True)


def test_a_setting_that_fails_is_the_worst_and_the_others_are_tried(tmp_path: Path) -> None:
    tune = "train: joint, settings: {optimizer: sgd}, tune: {lr: [1.0e+9, 0.05, 0.01]}"
    run = run_study(small_study.write(tmp_path, STUDY + line("joint", tune)), tmp_path / "out")
    told = (step(tmp_path, "joint @0") / "trials.json").read_text()
    trials = json.loads(told, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert [bool(trial["scores"]) for trial in trials] == [False, True, True]
    assert [trial["chosen"] for trial in trials].index(True) > 0
    assert trials[0]["value"] is None
    assert "its loss was not finite" in trials[0]["failed"]
    table = (run.report.parent / "tables" / "tuning.csv").read_text().splitlines()
    row = dict(zip(table[0].split(","), table[1].split(","), strict=True))
    assert (row["no number"], row["worst"], row["sensitivity"]) == ("1 of 3", "failed", "–")
    assert "its loss was not finite" in (run.report.parent / "tables" / "trials.md").read_text()


def test_if_every_setting_fails_the_step_says_so(tmp_path: Path) -> None:
    tune = "train: joint, settings: {optimizer: sgd}, tune: {lr: [1.0e+9, 1.0e+8]}"
    study = small_study.write(tmp_path, STUDY + line("joint", tune))
    told = "`joint @0` failed: none of its settings can be used; of the first: member `joint` failed: its"
    with pytest.raises(InputError, match=told):
        run_study(study, tmp_path / "out")


def test_a_disk_that_fills_is_no_fault_of_a_setting() -> None:
    error = InputError("no room")
    error.__cause__ = OSError(28, "No space left on device")
    assert _of_system(error)
    assert not _of_system(InputError("it diverged"))


def test_settings_that_matter_only_when_asked_share_what_is_made() -> None:
    way = Clusters.model_construct(clusters=2, tune={"temperature": [0.1, 1.0], "lr": [0.1, 0.2]})
    assert _makers(way) == [0, 1, 0, 1]


def test_tasks_whose_expert_has_nothing_to_share_do_not_decide() -> None:
    splits = {"train": (np.zeros((4, 2)), np.zeros(4, dtype=int))}
    tasks = [Task(name, splits) for name in "ab"]
    suite = Suite("s", tasks=tuple(tasks), base=small_study.network)
    assert _value(suite, {"a": 0.5, "b": 0.9}, {"a": 1.0, "b": 0.0}) == 0.5
    assert _value(suite, {"a": 0.5, "b": 0.9}, {"a": 0.0, "b": 0.0}) == pytest.approx(0.7)


def assert_same(one: Path, other: Path) -> None:
    own, others = plait.open(str(one)), plait.open(str(other))
    assert set(own) == set(others)
    assert all(torch.equal(own[name].read(), others[name].read()) for name in own)


@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("ensemble: probabilities, tune: {lr: [1, 2]}", "nothing that is chosen on validation examples"),
        ("federate: synchronous, tune: {lr: [0.1, 0.2]}", "nothing that is chosen on validation examples"),
        ("train: joint, tune: {lrr: [1, 2]}", "experts have no setting `lrr`\n  hint: .*`lr`"),
        ("train: joint, tune: {lr: [0.1, -1]}", "lr"),
        ("train: joint, tune: {lr: [0.1, 0.1]}", "in `lr`, the value `0.1` is there twice"),
        ("train: joint, tune: {lr: []}", "`lr` has no value to try"),
        ("train: joint, settings: {lr: 0.1}, tune: {lr: [0.1]}", "`lr` is both set and tuned"),
        ("train: joint, tune: {lr: [1, 2, 3], clip: [1, 2, 3]}", "tries 9 settings, and each way may try 8"),
        ("train: joint, tune: {lr: 1}", "tune.lr` is `1`, and it must be a list"),
        ("distill: experts, tune: {temperature: [1, 0]}", "`temperature` is `0`, and it must be above 0"),
        ("distill: experts, temperature: 2, tune: {temperature: [1]}", "`temperature` is both set and tuned"),
        ("alternate: linear, tune: {lambda: [1]}", "method `linear` has no option `lambda`"),
        ("alternate: linear, tune: {rounds: [1, 16]}", "15 steps can't be shared by 16 rounds"),
        ("alternate: linear, tune: {alternate: [ties]}", "`alternate` can't be tuned"),
        ("train: joint, tune: {settings: [{lr: 0.1}]}", "`settings` can't be tuned"),
        ("zoo: 2, tune: {zoo: [1, 0]}", "`zoo` is `0`"),
    ],
)
def test_faulty_tuning_is_told_before_anything_is_run(way: str, told: str, tmp_path: Path) -> None:
    study = small_study.write(tmp_path, STUDY + line("it", way))
    with pytest.raises(InputError, match=told) as found:
        run_study(study, tmp_path / "out")
    assert f"{study}:7" in str(found.value)
    assert not (tmp_path / "out").exists()

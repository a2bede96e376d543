"""Which steps run again when a split's examples change: those that see it, and what follows from them."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import small_study

from plait.study import load_study, run_study
from plait.study._plan import planned

STUDY = """
study: tables
suite: suite.yaml
experts: {backend: sequential, steps: 4, batch_size: 16, lr: 0.01}
tuning: {budget: 3}
bootstrap: 0
ways:
  average: {merge: linear}
  tuned: {merge: task_arithmetic, tune: {lambda: [0.2, 0.8]}}
  joint: {train: joint}
  stopped: {train: joint, settings: {evaluate_every: 2, keep: best}}
  ensemble: {ensemble: probabilities}
  side by side: {concatenate: experts}
  rounds: {federate: synchronous, clients: 4, active: 3, requests: 2, alpha: 1}
"""
WAYS = ("average", "tuned", "joint", "stopped", "ensemble", "side by side", "rounds")
SCORES = {f"score {row} @0" for row in ("experts", "base", *WAYS)}
#: Steps that learn from or look at validation examples.
VALIDATED = {"score experts for tuning @0", "tuned @0", "stopped @0", "rounds @0"}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_study.ran(tmp_path_factory.mktemp("again"), STUDY)


@pytest.fixture
def ran(first: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first, tmp_path / "ran"))


def change(folder: Path, split: str, name: str = "first", column: int = 0) -> None:
    """Another number in the first row."""
    file = folder / f"{name}-{split}.csv"
    with file.open(newline="") as opened:
        rows = list(csv.reader(opened))
    rows[1][column] = "0.5"
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows(rows)


def again(folder: Path) -> set[str]:
    return set(run_study(folder / "study.yaml", folder / "out").ran)


def test_other_test_examples_are_measured_and_nothing_is_trained(ran: Path) -> None:
    change(ran, "test")
    assert again(ran) == SCORES


def test_other_validation_examples_run_what_is_chosen_or_stopped_by_them(ran: Path) -> None:
    change(ran, "validation")
    assert again(ran) == VALIDATED | {f"score {way} @0" for way in ("tuned", "stopped", "rounds")}


def test_other_training_examples_run_all_that_follows_from_experts(ran: Path) -> None:
    change(ran, "train")
    whole = VALIDATED | SCORES | {"experts @0", "similarity"}
    assert again(ran) == whole | {f"{way} @0" for way in WAYS if way != "ensemble"}


def test_experts_that_are_stopped_by_validation_examples_depend_on_them(ran: Path) -> None:
    text = STUDY.replace("lr: 0.01", "lr: 0.01, evaluate_every: 2, patience: 5")
    (ran / "study.yaml").write_text(text)
    before = facts(ran)
    change(ran, "validation")
    changed = {name for name, told in facts(ran).items() if told != before[name]}
    assert "experts @0" in changed


def test_a_base_depends_on_what_it_learns_from(ran: Path) -> None:
    (ran / "study.yaml").write_text(STUDY + "base: {train: joint, tasks: [first, second]}\n")
    before = facts(ran)
    for split, name, base in (("test", "first", False), ("train", "third", False), ("train", "first", True)):
        change(ran, split, name, column=2)
        now = facts(ran)
        assert (now["base"] != before["base"]) is base
        before = now


def facts(folder: Path) -> dict[str, object]:
    return {step.name: step.facts for step in planned(load_study(folder / "study.yaml"))}


def test_experts_are_the_same_whatever_the_validation_examples(ran: Path) -> None:
    """What a digest leaves out, results don't depend on."""
    change(ran, "validation")
    (ran / "fresh").mkdir()
    run_study(ran / "study.yaml", ran / "fresh")
    for out in (ran / "out", ran / "fresh"):
        assert len(weights(out)) == 3
    assert weights(ran / "out") == weights(ran / "fresh")


def weights(out: Path) -> dict[str, bytes]:
    return {p.parent.name: p.read_bytes() for p in out.glob("steps/experts-@0-*/models/*/model.safetensors")}

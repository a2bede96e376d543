"""The example studies in short: on small tables instead of their suites, with less of everything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import small_study
import yaml

from plait.study import load_study, run_study

STUDIES = Path(__file__).resolve().parents[2] / "examples" / "studies"
FEDERATED = ("fedast", "mas")

#: At most so much of each.
FEW = {"steps": 12, "rounds": 3, "zoo": 2}
#: What simulated clients have in place of what the example says.
CLIENTS = {
    "clients": 8,
    "active": 6,
    "local_steps": 4,
    "lr": 0.2,
    "requests": 12,
    "target": 0.6,
    "batch_size": 12,
    "probe_every": 2,
}


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((STUDIES / f"{name}.yaml").read_text(encoding="utf-8"))


def short(value: Any) -> Any:
    """Settings of training with few steps."""
    if isinstance(value, dict):
        whole = {key: inner for key, inner in value.items() if isinstance(inner, int) and key in FEW}
        return {key: min(whole[key], FEW[key]) if key in whole else short(value[key]) for key in value}
    return value


@pytest.mark.parametrize("name", ["alternating", "becoming_one", "sentences"])
def test_an_example_study_runs(name: str, tmp_path: Path) -> None:
    study = short(read(name)) | {"suite": "suite.yaml", "seeds": [0], "bootstrap": 20}
    study.pop("tasks", None)
    run = run_study(small_study.write(tmp_path, yaml.safe_dump(study, sort_keys=False)), tmp_path / "out")
    page = run.report.read_text(encoding="utf-8")
    assert all(way in page for way in study["ways"])
    assert len(run.expected) == len(study["expect"])


@pytest.mark.parametrize("name", FEDERATED)
def test_an_example_with_simulated_clients_runs(name: str, tmp_path: Path) -> None:
    study = read(name) | {"suite": "suite.yaml", "tasks": list(small_study.NAMES), "bootstrap": 0}
    study["experts"] = {"backend": "sequential", "steps": 4, "batch_size": 12, "lr": 0.01}
    for way in study["ways"].values():
        way |= {key: value for key, value in CLIENTS.items() if key in way}
    run = run_study(small_study.write(tmp_path, yaml.safe_dump(study, sort_keys=False)), tmp_path / "out")
    names = {step.name: tmp_path / "out" / step.folder for step in run.steps}
    for way in study["ways"]:
        told = json.loads((names[f"{way} @0"] / "simulated.json").read_text("utf-8"))
        assert set(told["reached"]) == set(small_study.NAMES)
        assert told["end"] > 0
    assert "Simulated time until a score was reached" in run.report.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", FEDERATED)
def test_an_example_with_simulated_clients_is_whole(name: str) -> None:
    study = load_study(STUDIES / f"{name}.yaml")
    assert study.reference in study.ways
    assert [task.name for task in study.suite.tasks] == ["digits", "mnist", "georgian"]

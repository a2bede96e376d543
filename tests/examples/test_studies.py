"""The studies among the examples run: on small tables in a short form, and are whole as they are."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from plait.study import load_study, run_study

ROOT = Path(__file__).resolve().parents[2]
STUDIES = sorted((ROOT / "examples" / "studies").glob("*.yaml"))
sys.path.insert(0, str(ROOT / "tests" / "study"))

#: What a short form has in place of what the example says.
SHORT = {
    "clients": 8,
    "active": 6,
    "local_steps": 4,
    "lr": 0.2,
    "requests": 12,
    "target": 0.6,
    "batch_size": 12,
}


def short(path: Path) -> str:
    """The example, on three small tables, with less of everything."""
    import small_study

    study: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    study |= {"suite": "suite.yaml", "tasks": list(small_study.NAMES), "bootstrap": 0}
    study["experts"] = {"backend": "sequential", "steps": 4, "batch_size": 12, "lr": 0.01}
    for way in study["ways"].values():
        way |= {key: value for key, value in SHORT.items() if key in way}
        if "probe_every" in way:
            way["probe_every"] = 2
    return yaml.safe_dump(study, sort_keys=False)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_an_example_runs_in_a_short_form(path: Path, tmp_path: Path) -> None:
    import small_study

    run = run_study(small_study.write(tmp_path, short(path)), tmp_path / "out")
    ways = yaml.safe_load(path.read_text(encoding="utf-8"))["ways"]
    names = {step.name: tmp_path / "out" / step.folder for step in run.steps}
    for way in ways:
        told = json.loads((names[f"{way} @0"] / "simulated.json").read_text(encoding="utf-8"))
        assert set(told["reached"]) == set(small_study.NAMES)
        assert told["end"] > 0
    page = run.report.read_text(encoding="utf-8")
    assert "Simulated time until a score was reached" in page


@pytest.mark.slow
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_an_example_is_whole(path: Path) -> None:
    study = load_study(path)
    assert study.reference in study.ways
    assert [task.name for task in study.suite.tasks] == ["digits", "mnist", "georgian"]

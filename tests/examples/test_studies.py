"""The example studies in short: on small tables instead of their suites, with a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import small_study
import yaml

import plait

STUDIES = Path(__file__).resolve().parents[2] / "examples" / "studies"


def short(value: Any) -> Any:
    """Settings of training with few steps."""
    if isinstance(value, dict):
        few = {"steps": 12, "rounds": 3, "zoo": 2}
        whole = {key: inner for key, inner in value.items() if isinstance(inner, int) and key in few}
        return {key: min(whole[key], few[key]) if key in whole else short(value[key]) for key in value}
    return value


@pytest.mark.parametrize("name", ["alternating", "becoming_one", "sentences"])
def test_an_example_study_runs(name: str, tmp_path: Path) -> None:
    text = (STUDIES / f"{name}.yaml").read_text()
    study = short(yaml.safe_load(text))
    study |= {"suite": "suite.yaml", "seeds": [0], "bootstrap": 20}
    study.pop("tasks", None)
    small_study.write(tmp_path, yaml.safe_dump(study, sort_keys=False))
    run = plait.run_study(tmp_path / "study.yaml", tmp_path / "out")
    page = run.report.read_text()
    assert all(way in page for way in study["ways"])
    assert len(run.expected) == len(study["expect"])

"""What makes a study's steps anew, who may run in its folder, and what goes on after a kill at any time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import small_study

from plait.study import run_study

STUDY = """
study: cache
suite: suite.yaml
experts: {backend: sequential, steps: 4, batch_size: 16, lr: 0.01}
bootstrap: 0
ways:
  average: {merge: linear}
  side by side: {concatenate: experts}
"""


def scores(out: Path, folders: dict[str, str], name: str) -> dict[str, np.ndarray]:
    with np.load(out / folders[f"score {name} @0"] / "numbers.npz") as found:
        return {task: found[task] for task in small_study.NAMES}


def test_another_order_of_the_tasks_makes_what_is_named_by_their_places_anew(tmp_path: Path) -> None:
    path = small_study.write(tmp_path, STUDY)
    first = run_study(path, tmp_path / "out").ran
    header, *tasks = (tmp_path / "suite.yaml").read_text().split("\n  - ")
    reordered = "\n  - ".join(part.strip() for part in [header, *reversed(tasks)])
    (tmp_path / "suite.yaml").write_text(reordered + "\n")
    path.write_text(STUDY.replace("bootstrap: 0", "bootstrap: 0\nsplit: validation"))
    again, fresh = (run_study(path, tmp_path / out) for out in ("out", "fresh"))
    assert ["base", *again.ran] == first
    one, two = (
        scores(tmp_path / out, {step.name: step.folder for step in run.steps}, "side by side")
        for out, run in (("out", again), ("fresh", fresh))
    )
    assert all(np.array_equal(one[task], two[task]) for task in small_study.NAMES)

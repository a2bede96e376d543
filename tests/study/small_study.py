"""A study of small networks on tables, quick to run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from plait.study import run_study

SUITE = """
suite: tables
base: {call: "small_study:network"}
reads: numbers
width: 16
tasks:
"""
TASK = """
  - {{name: {name}, classes: 3, data: {{csv: {{train: {name}-train.csv, validation: {name}-validation.csv,
     test: {name}-test.csv}}}}}}
"""
STUDY = """
study: tables
suite: suite.yaml
experts: {backend: sequential, steps: 40, batch_size: 16, lr: 0.01}
tuning: {budget: 3}
reference: average
expect: [experts > base, joint > average]
bootstrap: 50
ways:
  average: {merge: linear}
  task arithmetic: {merge: task_arithmetic, tune: {lambda: [0.2, 0.4, 0.8]}}
  joint: {train: joint, settings: {steps: 60}}
  ensemble: {ensemble: probabilities}
"""
NAMES = ("first", "second", "third")


def network() -> nn.Module:
    """The base, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 16), nn.Tanh())


def write(folder: Path, study: str = STUDY, names: tuple[str, ...] = NAMES) -> Path:
    """The files of a study; its path."""
    text = SUITE
    for number, name in enumerate(names):
        random = np.random.default_rng(number)
        rule = random.normal(size=(6, 3))
        for split, rows in (("train", 120), ("validation", 40), ("test", 50)):
            x = random.normal(size=(rows, 6))
            y = (np.tanh(x) @ rule).argmax(1)
            lines = [",".join([f"x{i}" for i in range(6)] + ["label"])]
            lines += [
                ",".join([*(f"{v:.6f}" for v in row), str(label)]) for row, label in zip(x, y, strict=True)
            ]
            (folder / f"{name}-{split}.csv").write_text("\n".join(lines) + "\n")
        text += TASK.format(name=name)
    (folder / "suite.yaml").write_text(text)
    (folder / "study.yaml").write_text(study)
    return folder / "study.yaml"


def ran(folder: Path, study: str = STUDY) -> Path:
    """The folder with a study's files, and its results under `out`."""
    run_study(write(folder, study), folder / "out")
    return folder


def step(folder: Path, name: str) -> Path:
    """Where the results of a step are."""
    wanted = name.replace(" ", "-")
    (found,) = (p for p in (folder / "out" / "steps").iterdir() if p.name.rpartition("-")[0] == wanted)
    return found

"""A disk that is full while a step writes weights: the step is named, and the run goes on from there."""

from __future__ import annotations

import resource
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import small_study

from plait.errors import InputError
from plait.study import run_study

Disk = Callable[[int], AbstractContextManager[None]]
STUDY = """
study: tables
suite: suite.yaml
experts: {backend: sequential, steps: 4, batch_size: 16, lr: 0.01}
bootstrap: 0
ways:
  side by side: {concatenate: experts}
  rounds: {federate: synchronous, clients: 4, active: 3, requests: 2, alpha: 1}
  groups: {split: 2, clients: 4, active: 3, requests: 2, alpha: 10}
"""


def test_the_step_is_named_and_what_to_do(tmp_path: Path, full_disk: Disk) -> None:
    path, out = small_study.write(tmp_path, STUDY), tmp_path / "out"
    with full_disk(500), pytest.raises(InputError) as caught:  # room for what is noted, not for weights
        run_study(path, out)
    told = str(caught.value)
    assert "step `base` failed: [Errno 27] File too large" in told
    assert "--resume" in told
    with pytest.raises(InputError) as caught:
        run_study(path, out, told=lambda step: limit(500) if step.name == "experts @0" else None)
    limit(resource.RLIM_INFINITY)
    told = str(caught.value)
    assert "a bug" not in told
    assert all(f"step `{way} @0` failed" in told for way in ("side by side", "rounds", "groups"))
    assert not list(out.glob("steps/**/*.safetensors.partial"))
    ran = run_study(path, out, resume=True).ran
    assert [name for name in ran if not name.startswith("score")] == [
        "similarity", "side by side @0", "rounds @0", "groups @0",
    ]  # fmt: skip


def limit(room: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

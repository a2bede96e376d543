"""Steps that train: the base as it is, an expert for each task, one model on all tasks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plait.errors import InputError
from plait.fleet import Fleet, Member
from plait.study._models import INDEX, body, save_body
from plait.study._study import Study, Way

#: Records of a step's training, as the fleet wrote them.
METRICS = "metrics.jsonl"
#: Rounds between a fleet's saves, so that a killed study loses little.
_SAVE_EVERY = 200


def base(study: Study, folder: Path, needs: Mapping[str, Path]) -> None:
    """The base as a checkpoint."""
    del needs
    save_body(study.suite.base(), folder / "model")


def experts(study: Study, seed: int, folder: Path, needs: Mapping[str, Path]) -> None:
    """A fleet with a member for each task."""
    members = [Member(name=task.name, task=task, seed=seed, **study.experts) for task in study.suite.tasks]
    saved = _fit(study, members, study.backend, folder, needs)
    index = {
        task.name: str(own.relative_to(folder)) for task, own in zip(study.suite.tasks, saved, strict=True)
    }
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def joint(study: Study, way: Way, seed: int, folder: Path, needs: Mapping[str, Path]) -> None:
    """One member that learns all tasks at once."""
    tasks = list(study.suite.tasks)
    learned: Any = tasks
    if way.weights is not None:
        learned = dict(way.weights)
    member = Member(name=way.name, task=learned, seed=seed, **way.settings)
    (saved,) = _fit(study, [member], "auto", folder, needs)
    saved.rename(folder / "model")
    shutil.rmtree(folder / "models")


def _fit(
    study: Study, members: Sequence[Member], backend: Any, folder: Path, needs: Mapping[str, Path]
) -> list[Path]:
    """Train, go on if a save is there, and write models and metrics; the saves are not kept."""
    run = folder / "run"
    fleet = Fleet(
        members, study.suite, model=body(study.suite, needs["base"] / "model"), backend=backend, out=run,
        save_every=_SAVE_EVERY,
    )  # fmt: skip
    fleet.fit(resume=run.is_dir())
    failed = [name for name, status in fleet.status.items() if status == "failed"]
    if failed:
        hint = "lower its learning rate, or give it a clip"
        raise InputError(f"member `{failed[0]}` failed", where=f"fleet of {len(members)}", hint=hint)
    shutil.rmtree(folder / "models", ignore_errors=True)
    saved = fleet.save(folder / "models")
    shutil.copyfile(run / METRICS, folder / METRICS)
    shutil.rmtree(run)
    return saved

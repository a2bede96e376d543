"""Training in studies: settings, checked beforehand, and fleets that a killed run goes on with."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.errors import InputError, nearest, noted, raise_all
from plait.fleet import Fleet, Member
from plait.study._at import INDEX
from plait.study._choices import recall, remember
from plait.study._whole import write_json, write_text
from plait.tasks import Task, mixture

if TYPE_CHECKING:
    from plait.study._at import At

#: Records of a step's training, as the fleet wrote them.
METRICS = "metrics.jsonl"
_BACKEND = "backend.txt"
#: What came when in simulated time, of a step that simulates clients.
SIMULATED = "simulated.json"
BACKENDS = ("auto", "sequential", "stacked")
#: Settings of members; not what they are besides.
SETTINGS = [
    entry.name for entry in fields(Member) if entry.name not in ("name", "task", "start", "seed", "lora")
]
#: Rounds between a fleet's saves, so that a killed study loses little.
_SAVE_EVERY = 200
#: Seeds are below this.
_SEEDS = 2**63


def joined(experts: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A way's settings: its own, and else the experts'; its length replaces theirs."""
    settings = {name: value for name, value in experts.items() if name != "backend"} | dict(own)
    if {"steps", "epochs"} <= settings.keys() and not {"steps", "epochs"} <= own.keys():
        settings.pop("steps" if "epochs" in own else "epochs")
    return settings


def seen(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The splits that members with some settings see: validation examples only if they are to be measured."""
    return ("train", "validation") if settings.get("evaluate_every") else ("train",)


def problems_of_settings(settings: Mapping[str, Any], where: str) -> list[InputError]:
    """Settings that no member has, and values that they don't take."""
    unknown = [name for name in settings if name not in SETTINGS]
    problems = [
        InputError(f"experts have no setting `{name}`", where=where, hint=nearest(name, SETTINGS))
        for name in unknown
    ]
    # What is misspelt may be what is missing, so that values alone are looked at then.
    known: dict[str, Any] = {"steps": 1, "evaluate_every": 1} if unknown else {}
    known |= {name: value for name, value in settings.items() if name in SETTINGS}
    if unknown and "epochs" in settings and "steps" not in settings:
        del known["steps"]
    values: list[InputError] = []
    with noted(values):
        Member(name="expert", **known)
    return problems + [problem.located(lambda _: where) for problem in values]


def problems_of_mixture(
    tasks: Sequence[Task], weights: Mapping[str, float] | None, where: str
) -> list[InputError]:
    """Tasks that one model can't learn together, and weights that are no shares."""
    try:
        mixture(tasks, [weights[task.name] for task in tasks] if weights else None)
    except InputError as error:
        return [error.located(lambda own: f"{where}, {own}" if own else where)]
    return []


def fit(
    at: At,
    learned: Mapping[str, Any],
    settings: Mapping[str, Any],
    folder: Path,
    *,
    backend: Any = "auto",
    start: Path | None = None,
    seed: int | None = None,
) -> dict[str, Path]:
    """Train members at once, and go on if a save is there; the saves are not kept.

    Args:
        at: the suite and the seed.
        learned: a member's name → its task, or the tasks that it learns.
        settings: of all members.
        folder: gets `models` and the records of training, and holds the saves meanwhile.
        backend: of the fleet.
        start: the checkpoint that members start from; the study's base if None.
        seed: of the members; that of the step if None.

    Returns:
        a member's name → its folder.

    Raises:
        InputError: a member failed.
    """
    run, over = folder / "run", folder / "run.over"
    own = at.seed if seed is None else seed
    splits = seen(settings)
    members = [
        Member(name=name, task=_seeing(task, splits), seed=own, **settings) for name, task in learned.items()
    ]
    suite = replace(at.suite, tasks=tuple(_seeing(task, splits) for task in at.suite.tasks))
    fleet = Fleet(
        members, suite, model=at.body(start or at.base), backend=backend, out=run, save_every=_SAVE_EVERY
    )
    recall(fleet, folder)
    fleet.fit(resume=run.is_dir())
    remember(fleet, folder)
    failed = {record["member"]: record["failed"] for record in fleet.history if "failed" in record}
    hint = "if it diverged, lower its learning rate or give it a clip"
    raise_all([InputError(f"member `{name}` failed: {why}", hint=hint) for name, why in failed.items()])
    shutil.rmtree(folder / "models", ignore_errors=True)
    saved = fleet.save(folder / "models")
    shutil.copyfile(run / METRICS, folder / METRICS)
    write_text(_chosen(fleet) or backend, folder / _BACKEND)
    shutil.rmtree(over, ignore_errors=True)
    run.rename(over)  # half of the saves would be no fleet to go on with
    shutil.rmtree(over)
    return dict(zip(learned, saved, strict=True))


def _seeing(task: Any, splits: Sequence[str]) -> Any:
    """A task, or tasks that are learned together, with some splits alone; names stay names."""
    if isinstance(task, Task):
        return replace(task, splits={name: each for name, each in task.splits.items() if name in splits})
    return [_seeing(each, splits) for each in task] if isinstance(task, list) else task


def _chosen(fleet: Fleet) -> str | None:
    """The backend that was fastest for all members, if that was one backend with all of them at once."""
    found = {(choice.kind, choice.size) for choice in fleet.choices.values()}
    kind, size = found.pop() if len(found) == 1 else ("", 0)
    return kind if size == len(fleet) else None


def backend_of(folder: Path) -> str:
    """The backend that is to be taken for more of what was trained in a folder: timing it once is enough."""
    return (folder / _BACKEND).read_text(encoding="utf-8")


def write_index(saved: Mapping[str, Path], folder: Path) -> None:
    """Note in a step's folder which member's folder is where."""
    index = {name: str(own.relative_to(folder)) for name, own in saved.items()}
    write_json(index, folder / INDEX)


def later_seed(seed: int, number: int) -> int:
    """The seed of a way's training number `number`, so that each sees its examples in another order."""
    return (seed + 1_000_003 * number) % _SEEDS


def fit_one(at: At, tasks: Any, settings: Mapping[str, Any], folder: Path, **more: Any) -> None:
    """Train one member on some tasks at once; it becomes the folder's `model`, if that is not there yet."""
    if not (folder / "model").is_dir():
        (saved,) = fit(at, {at.name: tasks}, settings, folder, **more).values()
        saved.rename(folder / "model")
    shutil.rmtree(folder / "models", ignore_errors=True)

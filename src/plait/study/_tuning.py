"""Ways with settings to choose: each is made and measured on validation examples, and the best stays."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from plait.errors import InputError, noted
from plait.study._whole import as_number, write_json
from plait.study.ways import Way
from plait.tasks import Suite, Task

if TYPE_CHECKING:
    from plait.study._at import At
    from plait.study._document import StudyDocument

#: What was tried, in a way's folder: setting, validation score of each task, and whether it was taken.
TRIALS = "trials.json"
#: The same while settings are being tried.
_TRIED = "tried.json"
#: Keys of a way that hold others.
_WHOLE = ("tune", "settings", "options")


def problems_of_way(way: Way, study: StudyDocument, where: str) -> list[InputError]:
    """What is wrong with a way, or with one of the settings that it tries."""
    problems = _problems_of_tune(way, study, where)
    return problems or _of_variants(way, lambda variant: variant.problems(study, where))


def problems_on_suite(way: Way, suite: Suite, where: str) -> list[InputError]:
    """What is wrong with a way on these tasks, or with one of the settings that it tries."""
    try:
        return _of_variants(way, lambda variant: variant.problems_of_suite(suite, where))
    except InputError:
        return []  # a setting is at fault, which `problems_of_way` tells


def _of_variants(way: Way, look: Callable[[Way], list[InputError]]) -> list[InputError]:
    """Problems of all settings, each told once."""
    found = [problem for setting in way.grid for problem in look(way.variant(setting))]
    return list({str(problem): problem for problem in found}.values())


def _problems_of_tune(way: Way, study: StudyDocument, where: str) -> list[InputError]:
    problems = []
    if way.tune and not way.tunable:
        what = "it has nothing that is chosen on validation examples"
        problems.append(InputError(what, where=where, hint="give one way for each setting"))
    for key, values in way.tune.items():
        place = way.place_of(key)
        if key in _WHOLE or (key in way.needed() and isinstance(getattr(way, key), str)):
            hint = "tune single keys, such as `lr`; kinds of ways stand beside each other"
            problems.append(InputError(f"`{key}` can't be tuned", where=where, hint=hint))
            continue
        held = way.model_fields_set - way.needed() if place is None else getattr(way, place)
        if key in held:
            problems.append(InputError(f"`{key}` is both set and tuned", where=where))
        if not values:
            problems.append(InputError(f"`{key}` has no value to try", where=where))
        problems += _problems_of_values(way, key, where)
    budget = study.tuning.budget
    if len(way.grid) > budget:
        what = f"it tries {len(way.grid)} settings, and each way may try {budget}"
        problems.append(InputError(what, where=where, hint="try fewer, or raise tuning.budget for all"))
    return problems


def _problems_of_values(way: Way, key: str, where: str) -> list[InputError]:
    """Values that a way's own key does not take."""
    problems: list[InputError] = []
    for value in way.tune[key]:
        with noted(problems):
            way.variant({key: value})
    return [problem.located(lambda _: where) for problem in problems]


def make(way: Way, at: At, folder: Path) -> None:
    """Write what a way becomes into a folder, with the best of its settings; goes on after a kill.

    The best has the highest mean, over tasks, of the share of the experts' score; the first of equals. What
    another setting became is removed as soon as a better one is known. A setting that fails is the worst.
    """
    if not way.tuned:
        (setting,) = way.grid
        way.variant(setting).make(at, folder)
        return
    if (folder / TRIALS).is_file():  # a killed run has come as far as this
        (folder / _TRIED).unlink(missing_ok=True)
        return
    trials, grid = _read(folder / _TRIED), way.grid
    places = [folder / f"setting-{maker}" for maker in _makers(way)]
    for number, setting in enumerate(grid):
        if number >= len(trials):
            trials.append({"setting": setting, **_tried(way.variant(setting), at, places[number])})
            write_json(trials, folder / _TRIED)
        needed = [*places[number + 1 :], places[_best(trials[: number + 1])]]
        for place in places[: number + 1]:
            if place not in needed:
                shutil.rmtree(place, ignore_errors=True)
    best = _best(trials)
    if "failed" in trials[best]:
        (folder / _TRIED).unlink()  # all are tried again when the step is gone on with
        raise InputError(f"none of its settings can be used; of the first: {trials[0].get('failed')}")
    place = places[best]
    if place.is_dir():  # else a killed run has moved all of it
        for entry in sorted(place.iterdir()):
            entry.rename(folder / entry.name)
        place.rmdir()
    told = [trial | {"chosen": number == best} for number, trial in enumerate(trials)]
    write_json(told, folder / TRIALS)
    (folder / _TRIED).unlink()


def _makers(way: Way) -> list[int]:
    """For each setting the first one that makes the same: they differ only in what they are asked with."""
    made = [{key: value for key, value in each.items() if key not in way.asked} for each in way.grid]
    return [made.index(each) for each in made]


def answers(way: Way, at: At, folder: Path | None) -> Callable[[Task], nn.Module]:
    """What is asked of each task: the way with the setting that was taken."""
    trials = _read(folder / TRIALS) if folder is not None else []
    chosen = next((number for number, trial in enumerate(trials) if trial["chosen"]), 0)
    return way.variant(way.grid[chosen]).answers(at, folder)


def _tried(variant: Way, at: At, place: Path) -> dict[str, Any]:
    """A setting's scores on the split that is tuned on, or why there are none."""
    place.mkdir(exist_ok=True)
    try:
        variant.make(at, place)
        asked, split = variant.answers(at, place), at.study.tuning.split
        scores = {task.name: at.measured(asked(task).eval(), task, split) for task in at.suite.tasks}
    except InputError as error:
        if _of_system(error):
            raise
        return {"scores": {}, "value": math.nan, "failed": str(error)}
    return {"scores": scores, "value": _value(at.suite, scores, at.bounds)}


def _of_system(error: BaseException | None) -> bool:
    """Whether a disk or the like is at fault, so that the setting may do well another time."""
    return error is not None and (isinstance(error, OSError | MemoryError) or _of_system(error.__cause__))


def _value(suite: Suite, scores: Mapping[str, float], bounds: Mapping[str, float]) -> float:
    """The mean share of the experts' scores, over tasks where there is something to have a share of."""
    shares = [
        _share(task, scores[task.name], bounds[task.name])
        for task in suite.tasks
        if bounds[task.name] and math.isfinite(bounds[task.name])
    ]
    return float(np.mean(shares)) if shares else float(np.mean(list(scores.values())))


def _best(trials: Sequence[Mapping[str, Any]]) -> int:
    return max(range(len(trials)), key=lambda place: (_or_least(trials[place]), -place))


def _or_least(trial: Mapping[str, Any]) -> tuple[bool, float]:
    """What settings are ranked by: those that failed come last, and before them those without a number."""
    value = as_number(trial["value"])
    return "failed" not in trial, -math.inf if math.isnan(value) else value


def _share(task: Task, score: float, bound: float) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.divide(score, bound) if task.metric.higher_is_better else np.divide(bound, score))


def _read(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []

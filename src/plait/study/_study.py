"""A study, read and checked whole before its first step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from plait.errors import InputError, nearest, noted, raise_all
from plait.fleet import Member
from plait.methods import METHODS, Option
from plait.recipe import read_yaml, validate
from plait.study._document import StudyDocument, TuningDocument, WayDocument
from plait.tasks import Suite, load_suite

#: Names that rows of a report have already.
TAKEN = ("base", "experts")
#: What a member is besides its settings.
_NOT_SETTINGS = ("name", "task", "start", "seed", "lora")


@dataclass(frozen=True)
class Way:
    """One way of becoming one.

    Args:
        name: in tables.
        kind: `merge`, `train` or `ensemble`.
        method: of a merge.
        options: of a merge; fixed.
        grid: of a merge: the settings that are tried, at least one (empty, if nothing is tuned).
        settings: of joint training's member.
        weights: task → its share of joint training's examples; by size if None.
    """

    name: str
    kind: str
    method: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    grid: tuple[Mapping[str, Any], ...] = ({},)
    settings: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Study:
    """A base, experts trained from it, ways to make them one, and how all are measured.

    Args:
        name: of the study.
        suite: whose tasks; one expert for each.
        seeds: experts, joint training and merges are made once for each.
        experts: settings of every expert's `Member`.
        backend: of the experts' fleet.
        ways: of becoming one.
        tuning: how many settings each way may try, and on which split.
        split: that is measured.
        bootstrap: draws of an interval.
        reference: the way that the others are tested against.
        pictures: test pictures of each task in the report; 0 for none.
        about: a sentence for the report.
    """

    name: str
    suite: Suite
    seeds: tuple[int, ...]
    experts: Mapping[str, Any]
    backend: str
    ways: tuple[Way, ...]
    tuning: TuningDocument
    split: str
    bootstrap: int
    reference: str | None
    pictures: int
    about: str


def load_study(path: str | Path, *, data: str | Path | None = None) -> Study:
    """Read a study's YAML file, and check it whole: names, options, settings, splits.

    Args:
        path: of the file.
        data: a folder where a shipped suite's data sets are looked for first.

    Raises:
        InputError: something in it is at fault; all problems are named, with their lines.
    """
    documents = read_yaml(Path(path))
    if len(documents) != 1:
        raise InputError(f"a study is one document, and this file has {len(documents)}", where=str(path))
    document = documents[0]
    typed, problems, _ = validate(StudyDocument, document, strict=True)
    if typed is None:
        raise_all(problems)
        raise AssertionError
    for place, seed in enumerate(typed.seeds):
        if seed < 0 or typed.seeds.index(seed) != place:
            where = document.locate(("seeds", place))
            problems.append(InputError(f"seed {seed} is below 0 or there twice", where=where))
    settings = dict(typed.experts)
    backend = settings.pop("backend", "auto")
    problems += _settings(settings, document.locate(("experts",)))
    if backend not in ("auto", "sequential", "stacked"):
        where, hint = document.locate(("experts", "backend")), "auto, sequential or stacked"
        problems.append(InputError(f"there is no backend `{backend}` for experts", where=where, hint=hint))
    ways = []
    for name, way in typed.ways.items():
        found, wrong = _way(name, way, typed, settings, document.locate(("ways", name)))
        ways.append(found)
        problems += wrong
    if typed.reference is not None and typed.reference not in typed.ways:
        hint = nearest(typed.reference, typed.ways)
        where = document.locate(("reference",))
        problems.append(InputError(f"there is no way `{typed.reference}`", where=where, hint=hint))
    suite = None
    with noted(problems):
        suite = _suite(typed, Path(path), data)
    if suite is not None:
        problems += _splits(suite, typed, document.locate(("suite",)))
    raise_all(problems)
    assert suite is not None
    return Study(
        typed.study, suite, tuple(typed.seeds), settings, backend, tuple(ways), typed.tuning, typed.split,
        typed.bootstrap, typed.reference, typed.pictures, typed.about,
    )  # fmt: skip


def _suite(typed: StudyDocument, path: Path, data: str | Path | None) -> Suite:
    own = path.parent / typed.suite if typed.suite.endswith((".yaml", ".yml")) else typed.suite
    return load_suite(own, data, tasks=typed.tasks)


def _splits(suite: Suite, typed: StudyDocument, where: str) -> list[InputError]:
    """Tasks without a split that the study needs."""
    needed = {"train", typed.split}
    if any(way.tune for way in typed.ways.values()):
        needed.add(typed.tuning.split)
    problems = [
        InputError(f"task `{task.name}` has no split `{split}`, which the study needs", where=where)
        for task in suite.tasks
        for split in sorted(needed)
        if split not in task.splits
    ]
    for way in typed.ways.values():
        for task in way.weights or {}:
            if task not in [each.name for each in suite.tasks]:
                hint = nearest(task, [each.name for each in suite.tasks])
                problems.append(InputError(f"there is no task `{task}`", where=where, hint=hint))
    return problems


def _settings(settings: Mapping[str, Any], where: str) -> list[InputError]:
    """What no member could have."""
    known = [entry.name for entry in fields(Member) if entry.name not in _NOT_SETTINGS]
    problems = [
        InputError(f"experts have no setting `{name}`", where=where, hint=nearest(name, known))
        for name in settings
        if name not in known and name != "backend"
    ]
    if not problems:
        try:
            Member(name="expert", **settings)
        except InputError as error:
            problems.append(error.located(lambda _: where))
    return problems


def _way(
    name: str, way: WayDocument, typed: StudyDocument, experts: Mapping[str, Any], where: str
) -> tuple[Way, list[InputError]]:
    problems = []
    if name.startswith("score "):
        hint = "steps that measure are called so: call it otherwise"
        problems.append(InputError(f"`{name}` would be a step of two meanings", where=where, hint=hint))
    if name in TAKEN:
        problems.append(
            InputError(f"`{name}` is a row of every report", where=where, hint="call it otherwise")
        )
    if way.kind == "train":
        settings = {**experts, **way.settings}
        if {"steps", "epochs"} <= settings.keys():  # a way's own length replaces the experts'
            settings.pop("steps" if "epochs" in way.settings else "epochs")
        problems += _settings(settings, where)
        return Way(name, "train", settings=settings, weights=way.weights), problems
    if way.kind == "ensemble":
        return Way(name, "ensemble"), problems
    method = way.merge or ""
    if method not in METHODS:
        problems.append(
            InputError(f"there is no method `{method}`", where=where, hint=nearest(method, METHODS))
        )
        return Way(name, "merge", method), problems
    options = {option.name: option for option in METHODS[method].options}
    for key, values in [*((k, [v]) for k, v in way.options.items()), *way.tune.items()]:
        if key not in options:
            hint = nearest(key, options)
            problems.append(InputError(f"method `{method}` has no option `{key}`", where=where, hint=hint))
        elif key in way.options and key in way.tune:
            problems.append(InputError(f"`{key}` is both set and tuned", where=where))
        elif not values:
            problems.append(InputError(f"`{key}` has no value to try", where=where))
        else:
            problems += [
                InputError(f"`{key}` is {value!r}", where=where, hint=f"give {options[key].allowed}")
                for value in values
                if not _fits(options[key], value)
            ]
    grid = [dict(zip(way.tune, values, strict=True)) for values in itertools.product(*way.tune.values())]
    if len(grid) > typed.tuning.budget:
        what = f"it tries {len(grid)} settings, and each way may try {typed.tuning.budget}"
        problems.append(InputError(what, where=where, hint="try fewer, or raise tuning.budget for all"))
    return Way(name, "merge", method, way.options, tuple(grid)), problems


def _fits(option: Option, value: Any) -> bool:
    """Whether an option takes a value."""
    if option.choices:
        return value in option.choices
    if option.kind == "str":
        return isinstance(value, str)
    if option.kind == "bool":
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    low, high = option.low, option.high
    return (low is None or value >= low) and (high is None or value <= high)

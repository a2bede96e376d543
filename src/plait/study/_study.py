"""A study, read and checked whole before its first step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plait.checkpoint import load_into, open_model
from plait.errors import InputError, nearest, noted, raise_all
from plait.recipe import YamlDocument, read_yaml, validate
from plait.study._branches import Start, problems_of_branches
from plait.study._document import BaseDocument, StudyDocument, TuningDocument
from plait.study._training import BACKENDS, joined, problems_of_mixture, problems_of_settings
from plait.study._tuning import problems_of_way, problems_on_suite
from plait.study.ways import Way
from plait.tasks import Suite, load_suite

#: Names that rows of a report have already.
TAKEN = ("base", "experts")


@dataclass(frozen=True)
class Study:
    """A base, experts trained from it, ways to make them one, and how all are measured.

    Args:
        name: of the study.
        suite: whose tasks; one expert for each.
        seeds: experts, joint training and merges are made once for each.
        base: a checkpoint, or how it is trained; the suite's own if None.
        experts: settings of every expert's `Member`.
        backend: of the experts' fleet.
        branch: task → where its expert starts, of those that are trained after the fleet, in their order.
        ways: name → a way of becoming one.
        tuning: how many settings each way may try, and on which split.
        split: that is measured.
        bootstrap: draws of an interval.
        reference: the way that the others are tested against.
        expected: pairs of rows of the report, of which the first should be better.
        pictures: test pictures of each task in the report; 0 for none.
        about: a sentence for the report.
    """

    name: str
    suite: Suite
    seeds: tuple[int, ...]
    base: str | BaseDocument | None
    experts: Mapping[str, Any]
    backend: str
    branch: Mapping[str, Start]
    ways: Mapping[str, Way]
    tuning: TuningDocument
    split: str
    bootstrap: int
    reference: str | None
    expected: tuple[tuple[str, str], ...]
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
        if not 0 <= seed < 2**63 or typed.seeds.index(seed) != place:
            where, hint = document.locate(("seeds", place)), "give different whole numbers from 0 on"
            problems.append(
                InputError(f"seed {seed} is below 0, too large, or there twice", where=where, hint=hint)
            )
    settings = dict(typed.experts)
    backend = settings.pop("backend", "auto")
    problems += problems_of_settings(settings, document.locate(("experts",)))
    if backend not in BACKENDS:
        where, hint = document.locate(("experts", "backend")), "auto, sequential or stacked"
        problems.append(InputError(f"there is no backend `{backend}` for experts", where=where, hint=hint))
    for name, way in typed.ways.items():
        where = document.locate(("ways", name))
        problems += _problems_of_name(name, where) + problems_of_way(way, typed, where)
    if typed.reference is not None and typed.reference not in typed.ways:
        hint = nearest(typed.reference, typed.ways)
        where = document.locate(("reference",))
        problems.append(InputError(f"there is no way `{typed.reference}`", where=where, hint=hint))
    expected, wrong = _expected(typed, document)
    problems += wrong
    base = _beside(Path(path), typed.base) if isinstance(typed.base, str) else typed.base
    suite = None
    with noted(problems):
        suite = _suite(typed, Path(path), data)
    if suite is not None:
        problems += _splits(suite, typed, document.locate(("suite",)))
        problems += problems_of_branches(typed, suite, document.locate(("branch",)))
        problems += _problems_of_base(suite, base, settings, document.locate(("base",)))
    raise_all(problems)
    assert suite is not None
    branch = {task: later.start for task, later in typed.branch.items()}
    return Study(
        typed.study, suite, tuple(typed.seeds), base, settings, backend, branch, typed.ways, typed.tuning,
        typed.split, typed.bootstrap, typed.reference, expected, typed.pictures, typed.about,
    )  # fmt: skip


def _suite(typed: StudyDocument, path: Path, data: str | Path | None) -> Suite:
    own = path.parent / typed.suite if typed.suite.endswith((".yaml", ".yml")) else typed.suite
    return load_suite(own, data, tasks=typed.tasks)


def _expected(
    typed: StudyDocument, document: YamlDocument
) -> tuple[tuple[tuple[str, str], ...], list[InputError]]:
    """Pairs of models, of which the first should be better; and what names none."""
    pairs, problems, rows = list[tuple[str, str]](), list[InputError](), [*TAKEN, *typed.ways]
    for place, text in enumerate(typed.expect):
        where = document.locate(("expect", place))
        cuts = [(text[:at].strip(), text[at + 1 :].strip()) for at, sign in enumerate(text) if sign == ">"]
        if not cuts:
            hint = "say which should be better: `experts > base`"
            problems.append(InputError(f"`{text}` compares nothing", where=where, hint=hint))
            continue
        better, worse = next((cut for cut in cuts if set(cut) <= set(rows)), cuts[0])
        if better == worse or (better, worse) in pairs:
            problems.append(
                InputError(f"`{text}` compares a row with itself, or is there twice", where=where)
            )
        problems += [
            InputError(f"there is no way `{name}`", where=where, hint=nearest(name, rows))
            for name in (better, worse)
            if name not in rows
        ]
        pairs.append((better, worse))
    return tuple(pairs), problems


def _beside(path: Path, base: str) -> str:
    """A checkpoint's reference; one in the study's folder is found there."""
    own = path.parent / base
    return str(own) if own.exists() else base


def _problems_of_base(
    suite: Suite, base: str | BaseDocument | None, experts: Mapping[str, Any], where: str
) -> list[InputError]:
    problems: list[InputError] = []
    if isinstance(base, str):
        with noted(problems):
            load_into(suite.base(), open_model(base))
    elif base is not None:
        problems += problems_of_settings(joined(experts, base.settings), where)
        known = [task.name for task in suite.tasks]
        problems += [
            InputError(f"there is no task `{task}`", where=where, hint=nearest(task, known))
            for task in base.tasks or ()
            if task not in known
        ]
        chosen = [suite[task] for task in base.tasks or known if task in known]
        problems += problems_of_mixture(chosen, None, where)
    return problems


def _splits(suite: Suite, typed: StudyDocument, where: str) -> list[InputError]:
    """Tasks without a split that the study needs."""
    needed = {"train", typed.split}
    if any(way.tuned for way in typed.ways.values()):
        needed.add(typed.tuning.split)
    problems = [
        InputError(f"task `{task.name}` has no split `{split}`, which the study needs", where=where)
        for task in suite.tasks
        for split in sorted(needed)
        if split not in task.splits
    ]
    for way in typed.ways.values():
        problems += problems_on_suite(way, suite, where)
    return problems


def _problems_of_name(name: str, where: str) -> list[InputError]:
    """A way's name that means something else already."""
    if not name.strip() or not name.isprintable():
        return [InputError(f"{name!r} is no name for a way", where=where, hint="give letters and spaces")]
    if name == "experts for tuning":
        return [InputError(f"`{name}` is what a step is called", where=where, hint="call it otherwise")]
    if name.startswith("score "):
        hint = "steps that measure are called so: call it otherwise"
        return [InputError(f"`{name}` would be a step of two meanings", where=where, hint=hint)]
    if name in TAKEN:
        return [InputError(f"`{name}` is a row of every report", where=where, hint="call it otherwise")]
    return []

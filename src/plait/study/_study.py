"""A study, read and checked whole before its first step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from plait.errors import InputError, noted, raise_all, together
from plait.recipe import YamlDocument, read_yaml, validate
from plait.study._branches import Start
from plait.study._checks import expected_pairs, problems_of_file, problems_of_tasks, settings_of
from plait.study._document import BaseDocument, StudyDocument, TuningDocument
from plait.study._numbers import with_numbers
from plait.study.ways import Way
from plait.tasks import Suite, load_suite


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
        pictures: pictures of each task in the report; 0 for none.
        about: a sentence for the report.
        file: that it was read from, if it was.
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
    file: Path | None = None


def load_study(path: str | Path, *, data: str | Path | None = None) -> Study:
    """Read a study's YAML file, and check it whole: names, options, settings, splits.

    Args:
        path: of the file.
        data: a folder where a shipped suite's data sets are looked for first.

    Raises:
        InputError: something in it is at fault; all problems are named, with their lines.
    """
    path = Path(path)
    document = _document(path)
    typed, problems, _ = validate(StudyDocument, document, strict=True)
    if typed is None:
        raise together(problems)
    expected, wrong = expected_pairs(typed, document)
    problems += problems_of_file(typed, document) + wrong
    base = _beside(path, typed.base) if isinstance(typed.base, str) else typed.base
    suite = _suite(typed, document, data, problems)
    if suite is not None:
        problems += problems_of_tasks(typed, base, suite, document)
    raise_all(problems)
    assert suite is not None
    return Study(
        name=typed.study,
        suite=suite,
        seeds=tuple(typed.seeds),
        base=base,
        experts=settings_of(typed),
        backend=typed.experts.get("backend", "auto"),
        branch={task: later.start for task, later in typed.branch.items()},
        ways=typed.ways,
        tuning=typed.tuning,
        split=typed.split,
        bootstrap=typed.bootstrap,
        reference=typed.reference,
        expected=expected,
        pictures=typed.pictures,
        about=typed.about,
        file=path.resolve(),
    )


def _document(path: Path) -> YamlDocument:
    documents = read_yaml(path, kind="study")
    if len(documents) != 1:
        raise InputError(f"a study is one document, and this file has {len(documents)}", where=str(path))
    return replace(documents[0], data=with_numbers(documents[0].data))


def _suite(
    typed: StudyDocument, document: YamlDocument, data: str | Path | None, problems: list[InputError]
) -> Suite | None:
    """The study's suite with its tasks; if it can't be had, why is added to the problems."""
    own = Path(document.where).parent / typed.suite
    named: str | Path = own if own.suffix in (".yaml", ".yml") else typed.suite
    tasks = None if typed.tasks is None else list(dict.fromkeys(typed.tasks))
    line = document.locate(("suite",) if typed.tasks is None else ("tasks",))

    def located(where: str | None) -> str:
        if where is None:
            return line
        return where if where.startswith(str(own)) else f"{line}, {where}"

    with noted(problems):
        if isinstance(named, Path) and not named.is_file():
            hint = "a suite's file is looked for from the study's folder"
            raise InputError(f"there is no file `{typed.suite}`", where=line, hint=hint)
        try:
            return load_suite(named, data, tasks=tasks)
        except InputError as error:
            raise error.located(located) from error
    return None


def _beside(path: Path, base: str) -> str:
    """A checkpoint's reference; one in the study's folder is found there."""
    own = path.parent / base
    return str(own) if own.exists() else base

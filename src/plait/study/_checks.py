"""What is wrong with a study beyond the shape of its file: names, seeds, pairs, the base, splits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from plait.checkpoint import load_into, open_model
from plait.errors import InputError, nearest
from plait.recipe import YamlDocument
from plait.study._branches import problems_of_branches
from plait.study._document import BaseDocument, StudyDocument
from plait.study._training import BACKENDS, joined, problems_of_mixture, problems_of_settings
from plait.study._tuning import problems_of_way, problems_on_suite
from plait.tasks import Suite

#: Names that rows of a report have already.
TAKEN = ("base", "experts")


def problems_of_file(typed: StudyDocument, document: YamlDocument) -> list[InputError]:
    """What can be told from the file alone.

    Args:
        typed: what it says.
        document: with the lines.
    """
    problems = [*_twice(typed, document), *_problems_of_seeds(typed, document)]
    settings = problems_of_settings(settings_of(typed), document.locate(("experts",)))
    problems += settings
    if not typed.study.strip():
        problems.append(InputError("the study has no name", where=document.locate(("study",))))
    backend = typed.experts.get("backend", "auto")
    if backend not in BACKENDS:
        where, hint = document.locate(("experts", "backend")), "auto, sequential or stacked"
        problems.append(InputError(f"there is no backend `{backend}` for experts", where=where, hint=hint))
    for name, way in typed.ways.items():
        where = document.locate(("ways", name))
        # Ways take the experts' settings where they have none of their own: said once, of the experts.
        told = {problem.what for problem in settings}
        problems += _problems_of_name(name, where)
        problems += [problem for problem in problems_of_way(way, typed, where) if problem.what not in told]
    ways = _named(document)
    if typed.reference is not None and typed.reference not in ways:
        where, hint = document.locate(("reference",)), nearest(typed.reference, ways)
        problems.append(InputError(f"there is no way `{typed.reference}`", where=where, hint=hint))
    return problems


def problems_of_tasks(
    typed: StudyDocument, base: str | BaseDocument | None, suite: Suite, document: YamlDocument
) -> list[InputError]:
    """What can be told once the tasks are there.

    Args:
        typed: what the file says.
        base: the study's.
        suite: with the tasks.
        document: with the lines.
    """
    problems = _problems_of_splits(suite, typed, document.locate(("suite",)))
    for name, way in typed.ways.items():
        problems += problems_on_suite(way, suite, document.locate(("ways", name)))
    problems += problems_of_branches(typed, suite, document)
    return problems + _problems_of_base(suite, base, settings_of(typed), document)


def settings_of(typed: StudyDocument) -> dict[str, Any]:
    """Settings of every expert, without what the fleet is told."""
    return {name: value for name, value in typed.experts.items() if name != "backend"}


def expected_pairs(
    typed: StudyDocument, document: YamlDocument
) -> tuple[tuple[tuple[str, str], ...], list[InputError]]:
    """Pairs of models, of which the first should be better; and what names none."""
    pairs, problems, rows = list[tuple[str, str]](), list[InputError](), [*TAKEN, *_named(document)]
    for place, text in enumerate(typed.expect):
        where = document.locate(("expect", place))
        cuts = [(text[:at].strip(), text[at + 1 :].strip()) for at, sign in enumerate(text) if sign == ">"]
        if not cuts:
            hint = "say which should be better: `experts > base`"
            problems.append(InputError(f"`{text}` compares nothing", where=where, hint=hint))
            continue
        better, worse = next((cut for cut in cuts if set(cut) <= set(rows)), cuts[0])
        if better == worse:
            problems.append(InputError(f"`{text}` compares a row with itself", where=where))
        if (better, worse) in pairs:
            problems.append(InputError(f"`{text}` is there twice", where=where, hint="expect it once"))
        problems += [
            InputError(f"there is no way `{name}`", where=where, hint=nearest(name, rows))
            for name in (better, worse)
            if name not in rows
        ]
        pairs.append((better, worse))
    return tuple(pairs), problems


def _named(document: YamlDocument) -> list[str]:
    """All ways that the file names, those too that say something wrong."""
    ways = document.data.get("ways")
    return list(ways) if isinstance(ways, dict) else []


def _twice(typed: StudyDocument, document: YamlDocument) -> Iterator[InputError]:
    """Tasks and values of a grid that are listed twice."""
    listed: list[tuple[tuple[str | int, ...], Sequence[Any], str]] = [(("tasks",), typed.tasks or (), "task")]
    if isinstance(typed.base, BaseDocument):
        listed.append((("base", "tasks"), typed.base.tasks or (), "task"))
    for name, way in typed.ways.items():
        for key, values in way.tune.items():
            listed.append((("ways", name, "tune", key), values, f"in `{key}`, the value"))
    for path, values, what in listed:
        for place, value in enumerate(values):
            if value in values[:place]:
                where = document.locate((*path, place))
                yield InputError(f"{what} `{value}` is there twice", where=where, hint="list each once")


def _problems_of_seeds(typed: StudyDocument, document: YamlDocument) -> list[InputError]:
    problems = []
    for place, seed in enumerate(typed.seeds):
        where = document.locate(("seeds", place))
        if not 0 <= seed < 2**63:
            told = "below 0" if seed < 0 else "too large"
            hint = "seeds are whole numbers from 0 to 2^63 - 1"
            problems.append(InputError(f"seed {seed} is {told}", where=where, hint=hint))
        elif seed in typed.seeds[:place]:
            problems.append(InputError(f"seed {seed} is there twice", where=where, hint="list each once"))
    return problems


def _problems_of_base(
    suite: Suite, base: str | BaseDocument | None, experts: Mapping[str, Any], document: YamlDocument
) -> list[InputError]:
    problems, where = list[InputError](), document.locate(("base",))
    if isinstance(base, str):
        try:
            load_into(suite.base(), open_model(base))
        except InputError as error:
            problems.append(error.located(lambda own: f"{where}, {own}" if own else where))
    elif base is not None:
        settings = document.locate(("base", "settings"))
        problems += problems_of_settings(joined(experts, base.settings), settings)
        known = [task.name for task in suite.tasks]
        problems += [
            InputError(
                f"there is no task `{task}`",
                where=document.locate(("base", "tasks", place)),
                hint=nearest(task, known),
            )
            for place, task in enumerate(base.tasks or ())
            if task not in known
        ]
        chosen = [suite[task] for task in dict.fromkeys(base.tasks or known) if task in known]
        problems += problems_of_mixture(chosen, None, where) if chosen else []
    return problems


def _problems_of_splits(suite: Suite, typed: StudyDocument, where: str) -> list[InputError]:
    """Tasks without a split that the study needs."""
    needed = {"train", typed.split}
    if any(way.tuned for way in typed.ways.values()):
        needed.add(typed.tuning.split)
    return [
        InputError(f"task `{task.name}` has no split `{split}`, which the study needs", where=where)
        for task in suite.tasks
        for split in sorted(needed)
        if split not in task.splits
    ]


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

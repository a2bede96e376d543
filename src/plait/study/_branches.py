"""Experts that are trained after others, from the base, from one of them, or from a merge of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from plait.errors import InputError, nearest
from plait.recipe import YamlDocument
from plait.study._at import BASE, At, branched, trained
from plait.study._document import StudyDocument
from plait.study._domains import SPLIT, domain_weights
from plait.study._language import problems_of_language
from plait.study._training import fit, write_index
from plait.study.ways._posterior import averaged, write_weights
from plait.tasks import Suite

#: The start that is a merge of all experts there are, weighed by how likely the task's texts are of each
#: one's domain.
POSTERIOR = "posterior"

#: A word (`base`, `posterior`), a task, or tasks and their experts' weights.
Start = str | Mapping[str, float]


def needed(task: str, starts: Mapping[str, Start], tasks: list[str], seed: int) -> tuple[str, ...]:
    """Steps that a later expert needs besides the base.

    Args:
        task: its.
        starts: of all later experts, in the order in which they are trained.
        tasks: of the suite.
        seed: of the steps.
    """
    start = starts[task]
    if start == POSTERIOR:
        earlier = list(starts)[: list(starts).index(task)]
        sources = [name for name in tasks if name not in starts] + earlier
    else:
        sources = _sources(start)
    found = [branched(name, seed) if name in starts else trained(seed) for name in sources]
    return tuple(dict.fromkeys(found))


def _sources(start: Start) -> list[str]:
    """The tasks whose experts a start names."""
    if isinstance(start, str):
        return [] if start in (BASE, POSTERIOR) else [start]
    return list(start)


def splits_of_start(start: Start) -> tuple[str, ...]:
    """The splits of an expert's task that say where it starts."""
    return (SPLIT,) if start == POSTERIOR else ()


def branch(task: str, at: At, folder: Path) -> None:
    """Train a task's expert from its start, as all experts are trained."""
    start, given = at.base, at.study.branch[task]
    if isinstance(given, str) and given not in (BASE, POSTERIOR):
        start = at.experts[given]
    elif given != BASE:
        experts = at.experts
        weights = domain_weights(at, at.suite[task], experts) if isinstance(given, str) else dict(given)
        write_weights(weights, folder)
        start = folder / "start"
        if not start.is_dir():
            averaged(experts, weights, at.base, start)
    learned = {task: at.suite[task]}
    write_index(fit(at, learned, at.study.experts, folder, backend=at.study.backend, start=start), folder)


def problems_of_branches(typed: StudyDocument, suite: Suite, document: YamlDocument) -> list[InputError]:
    """Later experts of no task, or that start from one that is not there yet.

    Args:
        typed: what the study's file says.
        suite: with the tasks.
        document: with the lines.
    """
    tasks, problems = [task.name for task in suite.tasks], list[InputError]()
    there = [task for task in tasks if task not in typed.branch]
    if not there:
        where = document.locate(("branch",))
        hint = "leave a task out of `branch`: its expert starts from the base, before the others"
        problems.append(InputError("no expert is there to begin with", where=where, hint=hint))
    for task, branch in typed.branch.items():
        where = document.locate(("branch", task))
        if task not in tasks:
            problems.append(InputError(f"there is no task `{task}`", where=where, hint=nearest(task, tasks)))
        problems += _problems_of_start(task, branch.start, there, tasks, where)
        if f"expert {task}" in typed.ways:
            what = f"`expert {task}` would be a step of two meanings"
            line = document.locate(("ways", f"expert {task}"))
            problems.append(InputError(what, where=line, hint="call the way otherwise"))
        there.append(task)
    return problems + _problems_of_posteriors(typed, suite, document)


def _problems_of_posteriors(typed: StudyDocument, suite: Suite, document: YamlDocument) -> list[InputError]:
    """Starts by a domain posterior on tasks that are no language, or have nothing to tell it by."""
    tasks = {task.name: task for task in suite.tasks}
    own = [task for task, branch in typed.branch.items() if branch.start == POSTERIOR]
    if not own:
        return []
    problems = problems_of_language(suite, "a domain posterior", document.locate(("branch", own[0])))
    return problems + [
        InputError(
            f"task `{task}` has no split `{SPLIT}`, which its posterior is of",
            where=document.locate(("branch", task)),
        )
        for task in own
        if task in tasks and SPLIT not in tasks[task].splits
    ]


def _problems_of_start(
    task: str, start: Start, there: list[str], tasks: list[str], where: str
) -> list[InputError]:
    """Experts that a later one can't start from, since they are not there yet."""
    problems = []
    for source in _sources(start):
        if source not in there:
            what = f"`{task}` can't start from `{source}`, of which there is no expert then"
            order = "experts are trained in the order of `branch`, after all that are not in it"
            hint = order if source in tasks else nearest(source, there)
            problems.append(InputError(what, where=where, hint=hint))
    return problems

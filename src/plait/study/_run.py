"""A study from its file to its report."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from plait.engine._lock import locked
from plait.report import Edge, Expectation, edges, expectations, write_report
from plait.study._folder import claim, keep_copy, record
from plait.study._plan import inputs_of, planned
from plait.study._results import results
from plait.study._steps import Done, run_steps
from plait.study._study import Study, load_study

#: What is locked, in a study's folder, while one runs there.
_LOCKED = "run"


@dataclass(frozen=True)
class StudyRun:
    """What a run did.

    Args:
        report: the HTML file.
        steps: what became of each step, in order.
        expected: what was expected beforehand, and what came of it.
        edges: values that were chosen and are the lowest or highest tried: better ones may lie outside.
    """

    report: Path
    steps: tuple[Done, ...]
    expected: tuple[Expectation, ...] = ()
    edges: tuple[Edge, ...] = ()

    @property
    def ran(self) -> list[str]:
        """Names of the steps that were not found done."""
        return [step.name for step in self.steps if not step.cached]


def run_study(
    study: str | Path | Study,
    out: str | Path,
    *,
    resume: bool = False,
    data: str | Path | None = None,
    told: Callable[[Done], None] | None = None,
) -> StudyRun:
    """Train, merge, measure and report, as a study says; steps that are done are not repeated.

    Args:
        study: its YAML file, or a study that was loaded.
        out: the folder for steps and report; new, or this study's from an earlier run.
        resume: go on with the step that a killed run left unfinished; such a step begins anew otherwise.
        data: a folder where a shipped suite's data sets are looked for first.
        told: of each step when it is done.

    Raises:
        InputError: the study is at fault, nothing has been run then; the folder is another's, or another run
            is at work there; steps failed, all that don't need them are kept then, and there is no report.
    """
    out = Path(out)
    known = study if isinstance(study, Study) else load_study(study, data=data)
    known = replace(known, suite=replace(known.suite, base=_once(known.suite.base)))
    inputs = functools.cache(lambda: inputs_of(known))
    claim(known, out, lambda: inputs().digest)
    with locked(out / _LOCKED):
        record(known, out, inputs().digest)
        done = run_steps(planned(known, inputs()), out, resume=resume, told=told)
        found = results(known, out, done)
        report = write_report(found, out / "report")
        if not isinstance(study, Study):
            keep_copy(Path(study), out)
    expected, at_edge = tuple(expectations(found)), tuple(edges(found.trials))
    return StudyRun(report, tuple(done.values()), expected, at_edge)


def _once(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Gives copies of one network: some suites read all their data to know their base."""
    held: list[nn.Module] = []

    def copied() -> nn.Module:
        if not held:
            held.append(make())
        return copy.deepcopy(held[0])

    return copied

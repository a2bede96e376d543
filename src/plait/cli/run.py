"""`plait run STUDY -o OUT`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plait.cli._show import print_json

if TYPE_CHECKING:
    from plait.study import Done


def run(
    study: Annotated[Path, typer.Argument(help="A study's YAML file.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for steps and report.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the step that a killed run left unfinished.")
    ] = False,
    data: Annotated[Path | None, typer.Option(help="A folder where data sets are looked for first.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train, merge, measure and report as a study says; what was done before is not repeated."""
    from plait.study import run_study

    found = run_study(study, out, resume=resume, data=data, told=None if as_json else _tell)
    if as_json:
        expected = [{**asdict(each), "outcome": each.outcome} for each in found.expected]
        steps = [asdict(step) for step in found.steps]
        edges = [asdict(each) for each in found.edges]
        print_json({"report": str(found.report), "steps": steps, "expected": expected, "edges": edges})
    else:
        for each in found.expected:
            print(f"expected {each.told}")
        for each in found.edges:
            print(f"at the grid's edge, a better value may lie outside: {each.told}")
        print(f"report: {found.report}")


def _tell(step: Done) -> None:
    took = "done before" if step.cached else f"{step.seconds:.1f} s"
    print(f"{step.name}: {took}", file=sys.stderr, flush=True)

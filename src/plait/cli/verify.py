"""`plait verify OUT`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plait.cli._show import print_json, printable


def verify(
    path: Annotated[Path, typer.Argument(help="A folder that plait wrote.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Check an output against its plait.json.

    Every file and tensor is compared with its digest; the exit status is 0 if all are right, 2 if not.
    """
    from plait.engine import verify as check

    report = check(path)
    if as_json:
        print_json(report.to_dict())
    else:
        for problem in report.problems:
            print(printable(problem))
        word = "ok" if report.ok else "damaged"
        print(f"{path}: {word} ({report.tensors} tensors, {report.files} other files)")
    return 0 if report.ok else 2

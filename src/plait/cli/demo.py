"""`plait demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plait.cli.run import run


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for steps and report.")] = Path("demo-out"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the step that a killed run left unfinished.")
    ] = False,
) -> None:
    """One network reads eight scripts: a base, eight experts, eight merges, joint training, one report."""
    import plait.study

    run(Path(plait.study.__file__).parent / "demo.yaml", out, resume=resume)

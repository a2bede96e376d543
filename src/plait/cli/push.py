"""`plait push OUT REPO`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plait.cli._show import print_json


def push(
    path: Annotated[Path, typer.Argument(help="A folder that plait wrote.")],
    repo: Annotated[str, typer.Argument(help="The repository on the hub: org/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="The branch to upload to. Default: main.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Verify an output and upload it to the hub."""
    from plait.engine import push as upload

    address = upload(path, repo, private=private, revision=revision)
    print_json({"url": address}) if as_json else print(address)

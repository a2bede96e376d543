"""`plait inspect X`."""

from __future__ import annotations

from typing import Annotated

import typer

from plait.cli._show import print_json, print_table


def inspect(
    model: Annotated[str, typer.Argument(help="A checkpoint: path, hub id, base+adapter.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List a checkpoint's tensors, types and layers."""
    from plait.checkpoint import open_checkpoint
    from plait.engine import inspect_checkpoint

    found = inspect_checkpoint(open_checkpoint(model)).to_dict()
    if as_json:
        print_json(found)
        return
    tensors = found.pop("tensors")
    rows = [[str(v) for v in row.values()] for row in tensors] if isinstance(tensors, list) else []
    if rows:
        print_table(model, list(tensors[0]), rows)
    for key, value in found.items():
        print(f"{key}: {value}")

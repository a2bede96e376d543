"""`plait inspect X`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from plait.cli._show import print_json, print_table, printable
from plait.errors import size

if TYPE_CHECKING:
    from plait.engine import Inspection


def inspect(
    model: Annotated[str, typer.Argument(help="A path, hub id, URL or base+adapter.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List a checkpoint's tensors, types and layers.

    Only headers and configs are read, no weights.
    """
    from plait.engine import inspect_checkpoint

    found = inspect_checkpoint(model)
    if as_json:
        print_json(found.to_dict())
        return
    rows = [[t.name, list(t.shape), t.dtype, t.parameters, t.layer] for t in found.tensors]
    print_table(model, ["tensor", "shape", "type", "elements", "layer"], rows)
    print(f"{len(found.tensors)} tensors, {found.parameters:,} parameters, {size(found.bytes)}")
    for key, value in _facts(found).items():
        print(f"{key}: {printable(value)}")


def _facts(found: Inspection) -> dict[str, str]:
    """What is known besides the tensors; nothing that is empty."""
    facts = {
        "architecture": ", ".join(found.architectures) or found.model_type or "",
        "hub commit": found.revision or "",
        "types": ", ".join(f"{kind} ({count:,})" for kind, count in found.dtypes.items()),
        "layers": ", ".join(f"{count} in `{prefix}`" for prefix, count in found.layers.items()),
        "tied": ", ".join(f"{alias} = {name}" for alias, name in found.tied.items()),
        "other files": ", ".join(found.sidecars),
    }
    return {key: value for key, value in facts.items() if value}

"""`plait diff A B`."""

from __future__ import annotations

from typing import Annotated

import typer

from plait.cli._show import print_json, print_table

DIFFERENT = 3


def diff(
    a: Annotated[str, typer.Argument(help="What distances are relative to: a path, hub id, base+adapter.")],
    b: Annotated[str, typer.Argument(help="The other checkpoint.")],
    limit: Annotated[
        int, typer.Option(min=1, help="How many tensors to show, the most different first.")
    ] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Compare two checkpoints, tensor by tensor.

    The exit status is 0 if all tensors are identical to the bit, 3 if not.
    """
    from plait.engine import diff_checkpoints, largest_differences

    found = diff_checkpoints(a, b)
    if as_json:
        print_json(found.to_dict())
    else:
        rows = []
        for row in largest_differences(found.rows, limit):
            d = row.distance
            rows.append(
                [row.name, row.status]
                + ([None] * 5 if d is None else [d.l2, d.relative, d.cosine, d.max_abs, d.sign_agreement])
            )
        if rows:
            print_table(f"{a} → {b}", ["tensor", "", "L2", "relative", "cosine", "max", "same sign"], rows)
        same = sum(row.status == "identical" for row in found.rows)
        print(f"{same} of {len(found.rows)} tensors are identical")
    return 0 if found.identical else DIFFERENT

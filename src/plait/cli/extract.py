"""`plait extract-lora FINETUNED --base BASE --rank R -o OUT`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plait.cli._show import print_json, printable


def extract_lora(
    finetuned: Annotated[str, typer.Argument(help="The fine-tuned model: a path or hub id.")],
    base: Annotated[str, typer.Option(help="What it was trained from.")],
    rank: Annotated[int, typer.Option(min=1, help="Rank of the adapter's factors.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The adapter folder to write; it must be absent or empty.")
    ],
    alpha: Annotated[float | None, typer.Option(help="The adapter's alpha. Default: the rank.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Only modules whose name matches this glob; repeatable.")
    ] = None,
    save: Annotated[
        list[str] | None,
        typer.Option("--modules-to-save", help="Modules to store whole, by glob; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write the difference of two models as a LoRA adapter.

    The factors are cut from each matrix's change by its SVD; the folder is in PEFT's format.
    """
    from plait.engine import extract_lora as extract

    report = extract(
        finetuned,
        base,
        out,
        rank=rank,
        alpha=alpha,
        target_modules=target,
        modules_to_save=save or (),
    )
    found = report.to_dict()
    if as_json:
        print_json(found)
        return
    print(f"{out}: rank {rank}, {len(found['modules'])} modules, {len(found['saved'])} tensors saved whole")
    for left in found["left"]:
        print(printable(f"left out: {left['name']} ({left['why']})"))

"""`plait extract-lora FINETUNED --base BASE --rank R -o OUT`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plait.cli._show import print_json


def extract_lora(
    finetuned: Annotated[str, typer.Argument(help="The fine-tuned model.")],
    base: Annotated[str, typer.Option(help="What it was trained from.")],
    rank: Annotated[int, typer.Option(min=1, help="Rank of the factors.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The adapter folder to write.")],
    alpha: Annotated[float | None, typer.Option(help="LoRA's alpha; the rank.")] = None,
    target: Annotated[list[str] | None, typer.Option(help="Glob on module names; repeatable.")] = None,
    save: Annotated[list[str] | None, typer.Option("--modules-to-save", help="Glob; repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write the difference of two models as a LoRA adapter."""
    from plait.checkpoint import open_checkpoint
    from plait.engine import extract_lora as extract

    report = extract(
        open_checkpoint(finetuned),
        open_checkpoint(base),
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
        print(f"left out: {left['name']} ({left['why']})")

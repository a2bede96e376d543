"""`plait merge RECIPE OUT`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plait.cli._show import print_json, print_table, progress_bar, warn
from plait.errors import InputError, counted, parse_size

#: Less leaves no room for blocks that are worth reading.
_LEAST_MEMORY = 10**6


def merge(
    recipe: Annotated[Path, typer.Argument(help="YAML file, in plait's grammar or mergekit's.")],
    out: Annotated[
        Path | None, typer.Argument(help="The folder to write; it must be absent or empty.")
    ] = None,
    out_option: Annotated[Path | None, typer.Option("--out", "-o", help="The same, as an option.")] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="Budget for tensors in memory, such as 4GB or 512MiB. Default: a quarter of the memory."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Worker threads. Default: one per core.")] = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, …")] = "cpu",
    float64: Annotated[
        bool, typer.Option("--float64", help="Compute in float64 instead of float32.")
    ] = False,
    allow_nan: Annotated[
        bool, typer.Option("--allow-nan", help="Merge inputs that hold NaN or infinities.")
    ] = False,
    max_shard_size: Annotated[str, typer.Option(help="Largest size of one weight file.")] = "5GB",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output folder once the new one is verified.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted run; finished tensors are kept.")
    ] = False,
    if_changed: Annotated[
        bool, typer.Option("--if-changed", help="Do nothing if the output is up to date.")
    ] = False,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run the Python file that the recipe names under `code`.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Fingerprint inputs by their content, not by size and time.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of random methods; wins over the recipe's.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the plan, and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan or the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Merge checkpoints into one, by a recipe.

    mergekit-yaml's flags are understood too; those that have no effect here are named.
    """
    target = _target(out, out_option, dry_run)
    from dataclasses import replace

    from plait.engine import RunOptions, build_plan, run
    from plait.errors import raise_all
    from plait.recipe import read_recipe

    options = RunOptions(
        memory=None if memory is None else parse_size(memory, "--memory", _LEAST_MEMORY),
        threads=threads,
        device=device,
        float64=float64,
        allow_nan=allow_nan,
        max_shard_size=parse_size(max_shard_size, "--max-shard-size"),
        overwrite=overwrite,
        resume=resume,
        if_changed=if_changed,
        allow_code=allow_code,
        check=check,
    )
    recipes, problems = read_recipe(recipe)
    if not recipes:
        raise_all(problems)
    chosen = recipes[-1]
    if seed is not None:
        chosen = replace(chosen, seed=seed)
    plan = build_plan(chosen, options, problems)
    if not quiet:
        warn(plan.warnings)
    if dry_run or target is None:
        if as_json:
            print_json(plan.to_dict())
        else:
            print_table("", ["tensor", "how", "type", "shape", "from"], plan.rows())
            print(plan.summary())
        return
    if not quiet and not as_json:
        print(plan.summary())
    with progress_bar("merging", quiet=quiet or as_json) as report:
        result = run(plan, target, options, report)
    if as_json:
        print_json(result.to_dict())
    elif not quiet:
        done = f"{counted(result.tensors, 'tensor')} in {result.seconds:.1f} s"
        print(f"{result.path}: {'up to date' if result.unchanged else done}")


def _target(out: Path | None, option: Path | None, dry_run: bool) -> Path | None:
    if out is not None and option is not None and out != option:
        raise InputError("two outputs are named", hint="name one folder, with -o or without")
    target = out or option
    if target is None and not dry_run:
        raise InputError("no output is named", hint="plait merge RECIPE OUT")
    return target

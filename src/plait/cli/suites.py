"""`plait suites [NAME]`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plait.cli._show import print_json, print_table

if TYPE_CHECKING:
    from plait.tasks import Suite


def suites(
    name: Annotated[str | None, typer.Argument(help="A suite to show, or its YAML file.")] = None,
    data: Annotated[Path | None, typer.Option(help="A folder where data sets are looked for first.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the suites that ship with plait, or show one: its tasks, and which of them can't be had here.

    Showing a suite makes its data ready, for which packages may be downloaded.
    """
    from plait.tasks import load_suite, suite_summaries

    if name is None:
        found = suite_summaries()
        if as_json:
            print_json([{"suite": key, "about": about} for key, about in found.items()])
        else:
            print_table("suites", ["suite", "what it is"], [[key, about] for key, about in found.items()])
        return
    suite = load_suite(name, data)
    print_json(_plain(suite)) if as_json else _show(suite)


def _plain(suite: Suite) -> dict[str, Any]:
    tasks = [
        {
            "task": task.name,
            "about": task.about,
            "metric": task.metric.name,
            "semi_synthetic": task.semi_synthetic,
            "examples": {split: len(examples) for split, examples in task.splits.items()},
        }
        for task in suite.tasks
    ]
    return {"suite": suite.name, "about": suite.about, "tasks": tasks, "missing": dict(suite.missing)}


def _show(suite: Suite) -> None:
    from plait.tasks import NOTE, marked, reasons

    splits = ("train", "validation", "test")
    rows = [
        [
            marked(task.name, task.semi_synthetic),
            task.metric.name,
            *(len(task.splits[split]) if split in task.splits else None for split in splits),
            task.about,
        ]
        for task in suite.tasks
    ]
    if suite.about:
        print(suite.about)
    print_table(suite.name, ["task", "metric", *splits, "about"], rows)
    if any(task.semi_synthetic for task in suite.tasks):
        print(NOTE)
    for reason in reasons(suite.missing):
        print(f"missing: {reason}")

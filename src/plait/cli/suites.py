"""`plait suites [NAME]`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plait.cli._show import print_json, print_table, warn

if TYPE_CHECKING:
    from plait.tasks import Suite


def suites(
    name: Annotated[
        str | None, typer.Argument(help="A suite, or a YAML file, to show with its tasks.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A folder where data sets are looked for first.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List suites of tasks, or show one with its tasks; what is not here yet is downloaded."""
    from plait.tasks import load_suite, suite_summaries

    if name is None:
        found = suite_summaries()
        if as_json:
            print_json([{"name": key, "about": about} for key, about in found.items()])
        else:
            print_table("suites", ["name", "what it is"], [[key, about] for key, about in found.items()])
        return
    suite = load_suite(name, data)
    if as_json:
        print_json({"name": suite.name, "tasks": _rows(suite), "missing": dict(suite.missing)})
        return
    rows = [[str(value) for value in row.values()] for row in _rows(suite)]
    print_table(suite.name, list(_rows(suite)[0]), rows)
    for task, why in suite.missing.items():
        warn(f"task `{task}` is missing: {why}")


def _rows(suite: Suite) -> list[dict[str, Any]]:
    return [
        {
            "task": task.name + (" *" if task.semi_synthetic else ""),
            "metric": task.metric.name,
            "train": len(task.splits.get("train", ())),
            "test": len(task.splits.get("test", ())),
            "what it is": task.about,
        }
        for task in suite.tasks
    ]

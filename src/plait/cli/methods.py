"""`plait methods [NAME]`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from plait.cli._show import print_json, print_table


def methods(
    name: Annotated[str | None, typer.Argument(help="A method to show with its options.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List merge methods, or show one with its options."""
    from plait.methods import METHODS, get_method

    chosen = [get_method(name)] if name is not None else list(METHODS.values())
    if as_json:
        print_json([_plain(method) for method in chosen])
        return
    if name is None:
        print_table(
            "methods", ["name", "what it does", "source"], [[m.name, m.summary, m.reference] for m in chosen]
        )
        return
    method = chosen[0]
    print(f"{method.name}: {method.summary}\nsource: {method.reference}\nbase: {method.base}")
    for option in method.options:
        print(f"\n{option.name}: {option.allowed}; {option.defaults}\n    {option.doc}")


def _plain(method: Any) -> dict[str, Any]:
    return {
        "name": method.name,
        "summary": method.summary,
        "reference": method.reference,
        "base": method.base,
        "models": [method.min_models, method.max_models],
        "symmetric": method.symmetric,
        "options": [
            {**asdict(option), "mergekit": option.default_for("mergekit")} for option in method.options
        ],
    }

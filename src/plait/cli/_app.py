"""The application: every command is registered here, and none is imported before it is called."""

from __future__ import annotations

from typing import Annotated

import typer

from plait.cli.demo import demo
from plait.cli.diff import diff
from plait.cli.evaluate import evaluate
from plait.cli.extract import extract_lora
from plait.cli.inspect import inspect
from plait.cli.merge import merge
from plait.cli.methods import methods
from plait.cli.push import push
from plait.cli.run import run
from plait.cli.suites import suites
from plait.cli.try_models import try_models
from plait.cli.verify import verify

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Train many models at once, weave them into one.",
)
for command in (demo, run, merge, verify, push, inspect, diff, evaluate, methods, suites):
    app.command()(command)
app.command("try")(try_models)
app.command("extract-lora")(extract_lora)


def _version(wanted: bool) -> None:
    if wanted:
        from plait import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train many models at once, weave them into one."""

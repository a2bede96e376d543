"""Printing: JSON for machines, tables and a progress bar for people."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plait.engine import Progress

#: Characters that steer a terminal or turn the direction of what it shows; names of tensors may hold any.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text with every character that steers a terminal written out as in Python (`\\x1b`)."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def print_json(content: Any) -> None:
    """Print a value as JSON; numbers that JSON has no word for are null."""
    print(json.dumps(_finite(content), indent=2, default=str, allow_nan=False))


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


#: Rows up to which a terminal gets a table that is folded to its width.
_FOLDED = 1000


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; columns of numbers are flush right. What no terminal shows has one line per row."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    right = [all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(columns))]
    cells = [[_cell(value) for value in row] for row in rows]
    # No markup: brackets in names are brackets.
    console = Console(markup=False, emoji=False)
    if not console.is_terminal or len(rows) > _FOLDED:
        _print_lines(printable(title), columns, cells, right)
        return
    table = Table(title=printable(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column, numbers in zip(columns, right, strict=True):
        table.add_column(column, overflow="fold", justify="right" if numbers else "left")
    for row in cells:
        table.add_row(*row)
    console.print(table)


def _print_lines(
    title: str, columns: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool]
) -> None:
    """A table without rich, which takes a millisecond for each row."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
    lines = []
    for row in (columns, *cells):
        spaces = [" " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        parts = [s + c if flush else c + s for c, s, flush in zip(row, spaces, right, strict=True)]
        lines.append(f" {'   '.join(parts).rstrip()}")
    lines.insert(1, " " + "─" * (sum(widths) + 3 * (len(widths) - 1)))
    print("\n".join([title, "", *lines, ""] if title else [*lines, ""]))


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


@contextmanager
def progress_bar(label: str, *, quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """A bar with bytes per second and time left, on a terminal; nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn(label),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label)

        def report(now: Progress) -> None:
            bar.update(task, completed=now.done_bytes, total=max(now.total_bytes, 1))

        yield report


def warn(messages: Sequence[str]) -> None:
    """Say warnings, each once."""
    for message in dict.fromkeys(messages):
        print(f"plait: {printable(message)}", file=sys.stderr)

"""What every benchmark needs: the machine in words, processes measured from outside, tables and JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_VERSIONS = ("plait", "torch", "numpy", "numba", "safetensors", "blake3", "transformers")


@dataclass(frozen=True)
class Usage:
    """What a process took.

    Attributes:
        wall: seconds.
        cpu: seconds of all its threads, in user and kernel mode.
        peak: bytes resident at most.
        output: what it printed.
    """

    wall: float
    cpu: float
    peak: int
    output: str


def measure(command: Sequence[str], *, env: Mapping[str, str] | None = None) -> Usage:
    """Run a command to its end.

    Raises:
        RuntimeError: it failed; its last words are in the message.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(env or {})},
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{output[-2000:]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Usage(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * unit, output)


def machine() -> dict[str, Any]:
    """The machine and the versions that a figure belongs to."""
    found = {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        found["processor"] = names[0] if names else platform.processor()
    if hasattr(os, "sysconf"):
        found["memory_gb"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    installed = {d.metadata["Name"].lower(): d.version for d in distributions() if d.metadata["Name"]}
    return {**found, **{name: installed.get(name) for name in _VERSIONS}}


def show(title: str, rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print rows as a table; their keys are its columns."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in rows:
        table.add_row(*(_text(row.get(column)) for column in columns))
    console.print(table)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Keep results with the machine's description and the date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), **content}
    path.write_text(json.dumps(whole, indent=1, default=asdict) + "\n", encoding="utf-8")

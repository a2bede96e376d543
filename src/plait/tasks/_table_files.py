"""Tables out of files, as they are written: CSV, JSON lines, NumPy archives."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from plait.errors import InputError


@dataclass(frozen=True)
class Read:
    """What a file holds.

    Args:
        columns: name → values; of CSV texts, of JSON lines whatever they hold, None where a row has nothing.
        lines: the line of each row; () where a file has none.
    """

    columns: Mapping[str, Any]
    lines: list[int] = field(default_factory=list)


def read_table(kind: str, file: Path) -> Read:
    """A file's columns.

    Args:
        kind: `csv`, `jsonl` or `npz`.
        file: its path.

    Raises:
        InputError: it is none of that kind; the line is told where there is one.
    """
    try:
        found = _READERS[kind](file)
    except (OSError, ValueError, csv.Error, zipfile.BadZipFile) as error:
        raise InputError(f"it can't be read as {kind}: {error}", where=str(file)) from error
    if not found.columns or {len(values) for values in found.columns.values()} == {0}:
        raise InputError("it has no rows", where=str(file))
    return found


def _csv(file: Path) -> Read:
    rows, lines = [], []
    with file.open(encoding="utf-8-sig", newline="") as opened:
        reader = csv.reader(opened, strict=True)
        names = next(reader, [])
        for row in reader:
            if not row:
                continue
            if len(row) != len(names):
                what = f"{len(row)} values stand under a header of {len(names)} columns"
                raise InputError(what, where=f"{file}:{reader.line_num}")
            rows.append(row)
            lines.append(reader.line_num)
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"two columns are called `{twice[0]}`", where=f"{file}:1")
    return Read(dict(zip(names, map(list, zip(*rows, strict=True)), strict=False)), lines)


def _jsonl(file: Path) -> Read:
    rows, lines = [], []
    # Not by splitlines(), which also ends lines at characters that texts may hold.
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"this is no JSON: {error}", where=f"{file}:{number}") from error
        if not isinstance(row, dict):
            hint = 'a row is an object: {"column": value, …}'
            raise InputError(f"a row is a {type(row).__name__}", where=f"{file}:{number}", hint=hint)
        rows.append(row)
        lines.append(number)
    names = dict.fromkeys(name for row in rows for name in row)
    return Read({name: [row.get(name) for row in rows] for name in names}, lines)


def _npz(file: Path) -> Read:
    if not zipfile.is_zipfile(file):
        raise ValueError("it is no archive")
    with np.load(file, allow_pickle=False) as archive:
        columns = {name: archive[name] for name in archive.files}
    lengths = {name: len(column) if column.ndim else None for name, column in columns.items()}
    if len(set(lengths.values())) > 1 or None in lengths.values():
        told = ", ".join(f"`{name}` {length or 'none'}" for name, length in lengths.items())
        raise InputError(f"its arrays are of unequal length: {told}", where=str(file))
    return Read(columns)


_READERS = {"csv": _csv, "jsonl": _jsonl, "npz": _npz}

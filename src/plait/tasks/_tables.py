"""What a suite's file names: CSV, JSON lines, NumPy archives, Hugging Face datasets."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.errors import InputError, MissingExtra, nearest
from plait.tasks._find import Unavailable
from plait.tasks._suite_document import DataDocument


class Table:
    """Rows of a file or dataset; columns are read when asked for.

    Args:
        columns: name → values, or a dataset.
        where: for messages.
        rows: which of them; all if None.
    """

    def __init__(self, columns: Any, where: str, rows: NDArray[np.int64] | None = None) -> None:
        self.columns, self.where, self.rows = columns, where, rows
        self.names = list(getattr(columns, "column_names", columns))

    def __len__(self) -> int:
        if self.rows is not None:
            return len(self.rows)
        return len(self.columns[self.names[0]]) if isinstance(self.columns, Mapping) else len(self.columns)

    def column(self, name: str) -> Any:
        """A column's values, an array or a list.

        Raises:
            InputError: there is no such column.
        """
        if name not in self.names:
            raise InputError(f"there is no column `{name}`", where=self.where, hint=nearest(name, self.names))
        values = self.columns[name]
        if self.rows is None:
            return values
        if isinstance(values, np.ndarray):
            return values[self.rows]
        return [values[int(row)] for row in self.rows]

    def taken(self, rows: NDArray[np.int64]) -> Table:
        """Some of its rows."""
        return Table(self.columns, self.where, rows)


def read_splits(document: DataDocument, folder: Path) -> dict[str, Table]:
    """Split → its rows.

    Args:
        document: what the suite's file says.
        folder: that relative paths start from.

    Raises:
        InputError: a file is not as it should be.
        Unavailable: a file or dataset can't be had.
    """
    given = getattr(document, document.kind)
    if isinstance(given, dict):
        return {split: _read(document, path, folder) for split, path in given.items()}
    if document.parts is not None:
        return {split: _dataset(document, part) for split, part in document.parts.items()}
    whole = _dataset(document, "train") if document.kind == "dataset" else _read(document, given, folder)
    return _cut(whole, document)


def _cut(table: Table, document: DataDocument) -> dict[str, Table]:
    """Splits in shares; rows of one source stay together."""
    count = len(table)
    sources = table.column(document.source) if document.source else range(count)
    names, group = np.unique(np.asarray(sources).astype(str), return_inverse=True)
    order = np.random.default_rng(document.seed).permutation(len(names))
    place = np.empty(len(names))
    place[order] = (np.arange(len(names)) + 0.5) / len(names)
    found, start = {}, 0.0
    for split, share in (document.shares or {}).items():
        inside = (place >= start) & (place < start + share)
        found[split] = table.taken(np.flatnonzero(inside[group]))
        start += share
    return found


def _read(document: DataDocument, path: str, folder: Path) -> Table:
    file = folder / path
    if not file.is_file():
        raise Unavailable(
            f"there is no file `{path}`", where=str(folder), hint="paths start from the suite's file"
        )
    try:
        columns = _READERS[document.kind](file)
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise InputError(f"it can't be read as {document.kind}: {error}", where=str(file)) from error
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        raise InputError("its columns are empty or of unequal length", where=str(file))
    return Table(columns, str(file))


def _csv(file: Path) -> dict[str, Any]:
    with file.open(encoding="utf-8-sig", newline="") as opened:
        rows = list(csv.DictReader(opened))
    names = list(rows[0]) if rows else []
    return {name: _numbers([row[name] for row in rows]) for name in names}


def _jsonl(file: Path) -> dict[str, Any]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    names = list(rows[0]) if rows else []
    return {name: _numbers([row[name] for row in rows]) for name in names}


def _npz(file: Path) -> dict[str, Any]:
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


_READERS = {"csv": _csv, "jsonl": _jsonl, "npz": _npz}


def _numbers(values: list[Any]) -> Any:
    """An array where all values are numbers, else the values."""
    try:
        found = np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError):
        return values
    written = [str(value) for value in values] if found.ndim == 1 else ["."]
    whole = all(text.strip().lstrip("+-").isdecimal() for text in written)
    return found.astype(np.int64) if whole else found.astype(np.float32)


def _dataset(document: DataDocument, part: str) -> Table:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MissingExtra("datasets", "data", "a suite that names Hugging Face datasets") from error
    name = str(document.dataset)
    try:
        found = load_dataset(name, document.config, split=part, revision=document.revision)
    except Exception as error:  # the library raises errors of the hub, of files and its own
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise Unavailable(
            f"the dataset `{name}` can't be had ({reason})", hint="it lies on the Hugging Face hub"
        ) from error
    return Table(found, name)

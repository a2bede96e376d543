"""What a suite's file names: CSV, JSON lines, NumPy archives, Hugging Face datasets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.errors import InputError, MissingExtra, nearest
from plait.tasks._find import Unavailable
from plait.tasks._hub import offline, unreachable
from plait.tasks._suite_document import DataDocument
from plait.tasks._table_files import read_table


class Table:
    """Rows of a file or dataset; columns are read when asked for.

    Args:
        columns: name → values, or a dataset.
        where: for messages.
        rows: which of them; all if None.
        lines: of the file, one for each row that it has; () if it has none.
    """

    def __init__(
        self,
        columns: Any,
        where: str,
        rows: NDArray[np.int64] | None = None,
        lines: Sequence[int] = (),
    ) -> None:
        self.columns, self.where, self.rows, self.lines = columns, where, rows, lines
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
        self.check(name)
        values = self.columns[name]
        if self.rows is None:
            return values
        if isinstance(values, np.ndarray):
            return values[self.rows]
        return [values[int(row)] for row in self.rows]

    def check(self, name: str) -> None:
        """Nothing if there is such a column."""
        if name not in self.names:
            raise InputError(f"there is no column `{name}`", where=self.where, hint=nearest(name, self.names))

    def value(self, name: str, row: int) -> Any:
        """One value; of a dataset, nothing else is read."""
        row = row if self.rows is None else int(self.rows[row])
        return self.columns[name][row] if isinstance(self.columns, Mapping) else self.columns[row][name]

    def place(self, row: int) -> str:
        """Where a row stands, for messages."""
        row = row if self.rows is None else int(self.rows[row])
        return f"{self.where}:{self.lines[row]}" if len(self.lines) else f"{self.where}, row {row}"

    def sources(self, name: str) -> list[str]:
        """Where each row comes from.

        Raises:
            InputError: there is no such column, or a row does not say.
        """
        values = [str(value) if value is not None else "" for value in self.column(name)]
        if "" in values:
            what, place = f"`{name}` is missing", self.place(values.index(""))
            raise InputError(what, where=place, hint="the source of a row says which split it belongs to")
        return values

    def origin(self, name: str) -> str | None:
        """A digest of what a column holds, without making its values; None where it can't be told so.

        An archive's array is hashed. A dataset has a fingerprint that its library makes of its files' names
        and times, or of the hub's digests, and of all that was done to it.
        """
        found = hashlib.blake2b(digest_size=16)
        if self.rows is not None:
            found.update(self.rows.tobytes())
        if not isinstance(self.columns, Mapping):
            own = getattr(self.columns, "_fingerprint", None)
            if not isinstance(own, str):
                return None
            found.update(f"{name} {own}".encode())
            return found.hexdigest()
        values = self.columns[name]
        if not isinstance(values, np.ndarray) or values.dtype.hasobject:
            return None
        found.update(f"{values.dtype} {values.shape}".encode())
        found.update(np.ascontiguousarray(values).view(np.uint8).data)
        return found.hexdigest()

    def taken(self, rows: NDArray[np.int64]) -> Table:
        """Some of its rows."""
        return Table(self.columns, self.where, rows, self.lines)


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
        _check_files(given, folder)
        return {split: _read(document, path, folder) for split, path in given.items()}
    if document.parts is not None:
        found = {split: _dataset(document, part, folder) for split, part in document.parts.items()}
        _check_parts(document.parts, found)
        return found
    whole = (
        _dataset(document, "train", folder) if document.kind == "dataset" else _read(document, given, folder)
    )
    return _cut(whole, document)


def _check_files(paths: Mapping[str, str], folder: Path) -> None:
    """Nothing if every split has a file of its own."""
    splits: dict[Path, str] = {}
    for split, path in paths.items():
        file = (folder / path).resolve()
        if file in splits:
            what = f"splits `{splits[file]}` and `{split}` are one file, `{path}`"
            raise InputError(what, where=str(folder), hint="give its path alone, and `shares` of the splits")
        splits[file] = split


def _check_parts(parts: Mapping[str, str], found: Mapping[str, Table]) -> None:
    """Nothing if no row of a dataset is in two of its parts."""
    from datasets import ReadInstruction

    info = next(iter(found.values())).columns.info
    sizes = {name: split.num_examples for name, split in (info.splits or {}).items()}
    if not sizes:
        return
    taken: list[tuple[str, str, str, range]] = []
    for split, part in parts.items():
        for piece in ReadInstruction.from_spec(part).to_absolute(sizes):
            rows = range(sizes[piece.splitname])[piece.from_ : piece.to]
            for other, told, name, theirs in taken:
                if name == piece.splitname and max(rows.start, theirs.start) < min(rows.stop, theirs.stop):
                    what = f"splits `{other}` and `{split}` overlap: `{told}` and `{part}`"
                    raise InputError(what, where=found[split].where, hint="give every row to one split")
            taken.append((split, part, piece.splitname, rows))


def _cut(table: Table, document: DataDocument) -> dict[str, Table]:
    """Splits in shares; rows of one source stay together."""
    count = len(table)
    sources = table.sources(document.source) if document.source else list(map(str, range(count)))
    names, group = np.unique(sources, return_inverse=True)
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
    read = read_table(document.kind, file)
    return Table(read.columns, str(file), lines=read.lines)


def _dataset(document: DataDocument, part: str, folder: Path) -> Table:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MissingExtra("datasets", "data", "a suite that names Hugging Face datasets") from error
    name = str(document.dataset)
    here = (folder / name).is_dir()
    why = None if here else unreachable()
    try:
        with nullcontext() if why is None else offline():
            place = str(folder / name) if here else name
            found = load_dataset(place, document.config, split=part, revision=document.revision)
    except Exception as error:  # the library raises errors of the hub, of files and its own
        reason = why or str(error).strip().partition("\n")[0] or type(error).__name__
        raise Unavailable(
            f"`{name}` can't be had ({reason})",
            hint=None if why else "looked for on the Hugging Face hub",
        ) from error
    return Table(found, name)

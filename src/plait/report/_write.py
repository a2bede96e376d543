"""Writing a report: all of it is made first, then put in place by renames, the page last.

The folder may hold other things, which stay as they are. What an earlier report wrote is replaced
whole, so that no picture or table of it is left over.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from plait.errors import InputError
from plait.report._figures import figures
from plait.report._page import page
from plait.report._png import png
from plait.report._references import references
from plait.report._results import Results
from plait.report._sheet_png import sheet_png
from plait.report._tables import tables

PAGE = "report.html"
#: What a report consists of, in the order in which it is put in place.
PARTS = ("figures", "tables", "references.bib", PAGE)


def write_report(results: Results, folder: str | Path) -> Path:
    """Write a report: `report.html`, which needs no other file, and its figures, tables and references.

    Args:
        results: what to tell.
        folder: where to; made if it is not there. `figures/*.png`, `tables/*.csv`, `*.md` and `*.tex` and
            `references.bib` stand beside the page. Other files in it are left alone.

    Returns:
        the page.

    Raises:
        InputError: the folder can't be written to, or holds figures or tables that no report wrote.
        MissingExtra: plotly or matplotlib is not installed.
    """
    folder = Path(folder)
    _check(folder)
    files = _files(results)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".report-", dir=folder) as beside:
            _fill(Path(beside, "new"), files)
            _replace(folder, Path(beside, "new"), Path(beside, "old"))
    except OSError as error:
        hint = "give a folder that can be written to"
        raise InputError(
            f"the report can't be written: {error.strerror or error}", where=str(folder), hint=hint
        ) from error
    return folder / PAGE


def _check(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError("this is no folder", where=str(folder), hint="give a folder for the report")
    others = [name for name in PARTS if (folder / name).exists()]
    if others and PAGE not in others:
        raise InputError(
            f"the folder holds `{others[0]}`, which no report wrote",
            where=str(folder),
            hint="give a folder of the report's own",
        )


def _files(results: Results) -> dict[str, bytes]:
    """Path below the folder → what it holds."""
    shown, drawn, cited = tables(results), figures(results), references(results)
    files = {f"figures/{figure.name}.png": png(figure) for figure in drawn}
    sheet = sheet_png(results)
    if sheet is not None:
        files["figures/pictures.png"] = sheet
    for table in shown:
        kinds = {"csv": table.csv(), "md": table.markdown(), "tex": table.latex()}
        files |= {f"tables/{table.name}.{kind}": text.encode() for kind, text in kinds.items()}
    files["references.bib"] = "\n".join(entry.bibtex() for entry in cited).encode()
    files[PAGE] = page(results, shown, drawn, cited).encode()
    return files


def _fill(folder: Path, files: Mapping[str, bytes]) -> None:
    for name in ("figures", "tables"):
        (folder / name).mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def _replace(folder: Path, new: Path, old: Path) -> None:
    """Rename the parts into place; what was there comes back if one of them fails."""
    old.mkdir()
    done: list[str] = []
    try:
        for name in PARTS:
            if (folder / name).exists():
                (folder / name).rename(old / name)
            done.append(name)
            (new / name).rename(folder / name)
    except BaseException:
        for name in done:
            _remove(folder / name)
            if (old / name).exists():
                (old / name).rename(folder / name)
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)

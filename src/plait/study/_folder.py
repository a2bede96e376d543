"""Whose an output folder is: one study's, so that no other one writes over its report."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from plait.errors import InputError

if TYPE_CHECKING:
    from plait.study._study import Study

_FACTS = "study.json"
#: The study's file as it was last run here.
COPY = "study.yaml"


def claim(study: Study, out: Path) -> None:
    """Make sure that a folder is a study's; a new one becomes so.

    A study is known by its name and its file, which may be edited. If that file is gone it was moved, and the
    suite must be the same. A file that reads as what was last run here is a copy, and as good.

    Raises:
        InputError: it is another's, no study's, or can't be written.
    """
    facts = out / _FACTS
    try:
        if facts.is_file():
            found = json.loads(facts.read_text(encoding="utf-8"))
            told = _difference(study, out, found["study"], found.get("suite"), found.get("file"))
            if told is not None:
                hint = "give another folder (a study whose file was moved keeps its own: remove the old file)"
                raise InputError(told, where=str(out), hint=hint)
        elif out.is_file() or (out.is_dir() and any(out.iterdir())):
            raise InputError("it is there and no study's folder", where=str(out), hint="give a new one")
        else:
            out.mkdir(parents=True, exist_ok=True)
            record(study, out)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"it can't be a study's folder: {error}", where=str(out)) from error


def record(study: Study, out: Path) -> None:
    """Note whose a folder is, and where its file is as seen from there: both can be moved together."""
    file = None if study.file is None else os.path.relpath(study.file.resolve(), out.resolve())
    own = {"study": study.name, "suite": study.suite.name, "file": file}
    (out / _FACTS).write_text(json.dumps(own) + "\n", encoding="utf-8")


def _difference(study: Study, out: Path, name: str, suite: str | None, file: str | None) -> str | None:
    """What tells a study from the one that a folder belongs to."""
    if name != study.name:
        return f"the study `{name}` is there, and this is `{study.name}`"
    before = None if file is None else (out / file).resolve()
    if before is not None and before.is_file():
        if study.file is None:
            return f"the results of {before} are there, and this study `{name}` was not read from it"
        if before == study.file.resolve() or _same(study.file, out / COPY):
            return None
        return f"the results of {before} are there, and this is another study `{name}`: {study.file}"
    if suite not in (None, study.suite.name):
        return f"a study `{name}` of the suite `{suite}` is there, and this one is of `{study.suite.name}`"
    return None


def _same(file: Path, copy: Path) -> bool:
    return copy.is_file() and file.read_bytes() == copy.read_bytes()

"""Whose an output folder is: one study's, so that no other one writes over its report."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.errors import InputError
from plait.study._whole import write_json, write_text

if TYPE_CHECKING:
    from plait.study._study import Study

_FACTS = "study.json"
#: The study's file as it was last run here.
COPY = "study.yaml"
#: Where its steps are.
STEPS = "steps"


def claim(study: Study, out: Path, inputs: Callable[[], str]) -> None:
    """Make sure that a folder is a study's; a new one becomes so.

    A study is known by its name and its file, which may be edited. If that file is gone it was moved, and the
    suite must be the same. A file that reads as what was last run here is a copy, and as good if its data and
    base are the same, too.

    Args:
        study: whose it should be.
        out: the folder.
        inputs: gives a digest of the study's data and base.

    Raises:
        InputError: it is another's, no study's, or can't be written.
    """
    facts = out / _FACTS
    try:
        if facts.is_file():
            found = _read(facts)
            told = _difference(study, out, found, inputs)
            if told is not None:
                hint = "give another folder (a study whose file was moved keeps its own: remove the old file)"
                raise InputError(told, where=str(out), hint=hint)
        elif (out / STEPS).is_dir():
            hint = f"if they are this study's, write {json.dumps({'study': study.name})} into {_FACTS} there"
            what = f"there is `{STEPS}`, but no {_FACTS} that says whose"
            raise InputError(what, where=str(out), hint=hint)
        elif out.is_file() or (out.is_dir() and any(out.iterdir())):
            raise InputError("it is there and no study's folder", where=str(out), hint="give a new one")
        else:
            out.mkdir(parents=True, exist_ok=True)
            record(study, out, None)
    except (OSError, TypeError) as error:
        raise InputError(f"it can't be a study's folder: {error}", where=str(out)) from error


def record(study: Study, out: Path, inputs: str | None) -> None:
    """Note whose a folder is, and where its file is as seen from there: both can be moved together.

    A copy of the file takes no folder over: the folder stays the first one's as long as that is there.

    Args:
        study: whose it is.
        out: the folder.
        inputs: a digest of the study's data and base, once it is about to run.

    Raises:
        InputError: what is noted can't be read, or can't be written; what was noted stays then.
    """
    facts = out / _FACTS
    before = _read(facts) if facts.is_file() else {}
    file = None if study.file is None else os.path.relpath(study.file.resolve(), out.resolve())
    if before.get("file") is not None and (out / before["file"]).is_file():
        file = before["file"]
    own = {"study": study.name, "suite": study.suite.name, "file": file, "inputs": inputs}
    if own != before:
        with _writing(facts):
            write_json(own, facts, indent=None)


def keep_copy(file: Path, out: Path) -> None:
    """Keep a study's file as it was run.

    Raises:
        InputError: it can't be written.
    """
    copy = out / COPY
    if not copy.is_file() or not _same(file, copy):
        with _writing(copy):
            write_text(file.read_text(encoding="utf-8"), copy)


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    """Tells in words why a file can't be written."""
    try:
        yield
    except OSError as error:
        hint = "make room there, or give another folder; what was done stays"
        raise InputError(f"it can't be written: {error.strerror}", where=str(file), hint=hint) from error


def _read(facts: Path) -> dict[str, Any]:
    """What is noted of a folder.

    Raises:
        InputError: it can't be read as that.
    """
    try:
        found = json.loads(facts.read_text(encoding="utf-8"))
        if not isinstance(found["study"], str) or not isinstance(found.get("file"), str | None):
            raise TypeError("it names no study")
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = "give another folder"
        if (facts.parent / STEPS).is_dir():
            hint = f'if its `{STEPS}` are your study\'s, write {{"study": "NAME"}} into {_FACTS}, else {hint}'
        what = f"it can't be a study's folder: {_FACTS} is damaged"
        raise InputError(what, where=str(facts.parent), hint=hint) from error
    return found


def _difference(study: Study, out: Path, found: Mapping[str, Any], inputs: Callable[[], str]) -> str | None:
    """What tells a study from the one that a folder belongs to."""
    name, suite, file = found["study"], found.get("suite"), found.get("file")
    if name != study.name:
        return f"the study `{name}` is there, and this is `{study.name}`"
    before = None if file is None else (out / file).resolve()
    if before is not None and before.is_file():
        if study.file is None:
            return f"the results of {before} are there, and this study `{name}` was not read from it"
        if before == study.file.resolve():
            return None
        if _same(study.file, out / COPY):
            what = "reads the same, but its data or its base are others"
            same = inputs() == found.get("inputs")
            return None if same else f"the results of {before} are there, and {study.file} {what}"
        return f"the results of {before} are there, and this is another study `{name}`: {study.file}"
    if suite not in (None, study.suite.name):
        return f"a study `{name}` of the suite `{suite}` is there, and this one is of `{study.suite.name}`"
    return None


def _same(file: Path, copy: Path) -> bool:
    return copy.is_file() and file.read_bytes() == copy.read_bytes()

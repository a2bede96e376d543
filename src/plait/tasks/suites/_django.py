"""Texts of Django: its messages in many languages, and the docstrings of its parts."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from plait.tasks._find import find
from plait.tasks.suites._sources import DJANGO, MESSAGES
from plait.tasks.suites._texts import Item

#: Languages that are easily taken for each other.
FAMILIES = {
    "romance languages": ("es", "fr", "it", "pt", "ro", "ca", "gl"),
    "germanic languages": ("de", "nl", "sv", "da", "nb", "nn", "af"),
    "slavic languages": ("cs", "sk", "pl", "sl", "hr", "hsb", "dsb"),
    "cyrillic languages": ("ru", "uk", "be", "bg", "mk", "sr", "mn"),
}
PARTS = ("db", "contrib/gis", "core", "utils", "contrib/admin", "template", "forms", "contrib/auth")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')


def languages(family: Sequence[str], data: str | Path | None = None) -> Iterator[Item]:
    """Messages in the languages of a family; a message's source is its English original."""
    folder = find(MESSAGES, data)
    for label, language in enumerate(family):
        for path in sorted(folder.glob(f"**/locale/{language}/LC_MESSAGES/django.po")):
            for original, text in messages(path.read_text(encoding="utf-8")):
                if 12 <= len(text) <= 200 and text != original:
                    yield Item(text, label, original)


def messages(content: str) -> Iterator[tuple[str, str]]:
    """Originals and their translations in a PO file; those with a plural or marked fuzzy are left out."""
    for block in re.split(r"\n\s*\n", content):
        if "msgid_plural" in block or "#, fuzzy" in block:
            continue
        found = {key: _joined(block, key) for key in ("msgid", "msgstr")}
        if found["msgid"] and found["msgstr"]:
            yield found["msgid"], found["msgstr"]


def _joined(block: str, key: str) -> str:
    """The string of a keyword, put together from its lines."""
    start = re.search(rf'^{key} (".*"(?:\n".*")*)', block, re.MULTILINE)
    parts = _STRING.findall(start[1]) if start else []
    return " ".join("".join(parts).replace("\\n", " ").replace('\\"', '"').split())


def docstrings(data: str | Path | None = None) -> Iterator[Item]:
    """First paragraphs of docstrings, labelled with their part of Django; the source is the file."""
    folder = find(DJANGO, data)
    for label, part in enumerate(PARTS):
        for path in sorted((folder / part).rglob("*.py")):
            for text in _docstrings(path.read_text(encoding="utf-8")):
                if len(text) > 25:
                    yield Item(text[:300], label, path.relative_to(folder).as_posix())


def _docstrings(code: str) -> Iterator[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # escapes that newer Pythons warn of
        tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield " ".join(text.split("\n\n")[0].split())

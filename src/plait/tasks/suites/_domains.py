"""Domains of text for language models: each a stream of (source, text), split by source.

What is one short item of many (a message, a gloss) is put into one of some bundles by its name, so that an
example is a run of items that all lie in one split.
"""

from __future__ import annotations

import gzip
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from plait.tasks._find import find
from plait.tasks.suites import _django as django
from plait.tasks.suites import _english as english
from plait.tasks.suites._sources import DJANGO, GERMAN_MANPAGES, MANPAGES, SCRIPTS, VADER
from plait.tasks.suites._texts import Item, split_of

Documents = Iterable[tuple[str, str]]
_BUNDLES = 400


def python(data: str | Path | None = None) -> Documents:
    """Django's own source."""
    return _files(find(DJANGO, data), "**/*.py")


def javascript(data: str | Path | None = None) -> Documents:
    """The scripts of Django's admin pages, what is compressed left out."""
    return (found for found in _files(find(SCRIPTS, data), SCRIPTS.files) if ".min." not in found[0])


def latin(data: str | Path | None = None) -> Documents:
    """Messages in European languages written in Latin letters, English left out."""
    families = [f"{name} languages" for name in ("romance", "germanic", "slavic")]
    spoken = [language for name in families for language in django.FAMILIES[name]]
    return _bundled(django.languages(spoken, data))


def cyrillic(data: str | Path | None = None) -> Documents:
    """Messages in languages written in Cyrillic."""
    return _bundled(django.languages(django.FAMILIES["cyrillic languages"], data))


def reviews(data: str | Path | None = None) -> Documents:
    """Sentences out of reviews, newspapers and tweets."""
    return _bundled(english.sentences(find(VADER, data) / VADER.files))


def definitions(data: str | Path | None = None) -> Documents:
    """WordNet's definitions of nouns."""
    return _bundled(english.glosses("noun", data))


def novels(data: str | Path | None = None) -> Documents:
    """Jane Austen's novels."""
    return _bundled(english.novels(data), by_source=True)


def manuals(data: str | Path | None = None) -> Documents:
    """English man pages of Linux, as they are written (roff)."""
    return _files(find(MANPAGES, data), MANPAGES.files)


def german_manuals(data: str | Path | None = None) -> Documents:
    """German man pages, as they are written (roff)."""
    return _files(find(GERMAN_MANPAGES, data), GERMAN_MANPAGES.files)


#: Domain → what gives its documents; the first five need pip alone.
DOMAINS: Mapping[str, Callable[[str | Path | None], Documents]] = {
    "python": python,
    "javascript": javascript,
    "latin messages": latin,
    "cyrillic messages": cyrillic,
    "reviews": reviews,
    "definitions": definitions,
    "novels": novels,
    "manuals": manuals,
    "german manuals": german_manuals,
}
PIP_ALONE = tuple(DOMAINS)[:5]


def pieces(documents: Documents, size: int, limits: Mapping[str, int]) -> dict[str, list[tuple[str, bytes]]]:
    """Split → (source, so many bytes) in an order drawn by lot, at most as many as the limit says.

    Documents are cut into pieces of `size` bytes; a shorter rest is dropped.
    """
    found: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
    for source, text in documents:
        content = text.encode()
        found[split_of(source)] += [
            (source, content[start : start + size]) for start in range(0, len(content) - size + 1, size)
        ]
    return {split: sorted(found[split], key=_lot)[:limit] for split, limit in limits.items()}


def _lot(piece: tuple[str, bytes]) -> bytes:
    return hashlib.blake2b(piece[1], digest_size=8).digest()


def _files(folder: Path, pattern: str) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob(pattern)):
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8", "replace")
        yield path.relative_to(folder).as_posix(), text


def _bundled(items: Iterable[Item], *, by_source: bool = False) -> Iterator[tuple[str, str]]:
    """Items put together: those of one source, or of all sources that fall into one bundle."""
    bundles: dict[str, list[str]] = defaultdict(list)
    for item in items:
        number = int.from_bytes(hashlib.blake2b(item.source.encode(), digest_size=4).digest(), "big")
        bundles[item.source if by_source else f"bundle {number % _BUNDLES}"].append(item.text)
    for source, texts in bundles.items():
        yield source, "\n".join(texts)

"""English texts with labels: opinions, dictionary entries, quotations, novels."""

from __future__ import annotations

import re
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from plait.tasks._find import find
from plait.tasks.suites._sources import AUSTEN, FORTUNES, VADER, WORDNET
from plait.tasks.suites._texts import Item

OPINIONS = ("negative", "positive")
#: Lexicographers' files of WordNet 3.0, by number; `tops` is no topic.
NOUNS = dict(
    enumerate(
        [
            "act",
            "animal",
            "artifact",
            "attribute",
            "body",
            "cognition",
            "communication",
            "event",
            "feeling",
            "food",
            "group",
            "location",
            "motive",
            "object",
            "person",
            "phenomenon",
            "plant",
            "possession",
            "process",
            "quantity",
            "relation",
            "shape",
            "state",
            "substance",
            "time",
        ],
        start=4,
    )
)
VERBS = dict(
    enumerate(
        [
            "body",
            "change",
            "cognition",
            "communication",
            "competition",
            "consumption",
            "contact",
            "creation",
            "emotion",
            "motion",
            "perception",
            "possession",
            "social",
            "stative",
            "weather",
        ],
        start=29,
    )
)
TOPICS = (
    "computers",
    "definitions",
    "food",
    "knghtbrd",
    "law",
    "people",
    "politics",
    "science",
    "songs-poems",
    "men-women",
    "sports",
    "wisdom",
    "work",
    "zippy",
)
NOVELS = ("Emma", "Mansfield Park", "Northanger Abbey", "Persuasion", "Pride and Prejudice")
NOVELS += ("Sense and Sensibility",)


def opinions(about: str, data: str | Path | None = None) -> Iterator[Item]:
    """Sentences that at least twenty people rated (Hutto & Gilbert 2014), those rated near 0 left out.

    A source is a review, where its number is told, else a sentence.

    Args:
        about: `movie` or `amazon`.
        data: a folder that files are looked for in first.
    """
    name = f"hutto_ICWSM_2014/{about}ReviewSnippets_GroundTruth.txt"
    with tarfile.open(find(VADER, data) / VADER.files) as archive:
        file = archive.extractfile(name)
        lines = file.read().decode("latin-1").splitlines() if file else []
    for line in lines:
        number, _, rest = line.partition("\t")
        rating, _, text = rest.partition("\t")
        if text and abs(float(rating)) > 0.8:
            yield Item(text, int(float(rating) > 0), f"{about} {number.partition('_')[0]}")


def sentences(archive: Path) -> Iterator[Item]:
    """All sentences of that study: of films, products, newspapers and tweets; a source as for `opinions`."""
    with tarfile.open(archive) as opened:
        for name in sorted(n for n in opened.getnames() if n.endswith("_GroundTruth.txt")):
            file = opened.extractfile(name)
            for line in file.read().decode("latin-1").splitlines() if file else []:
                number, _, rest = line.partition("\t")
                text = rest.partition("\t")[2]
                if text:
                    yield Item(text, 0, f"{name} {number.partition('_')[0]}")


def glosses(kind: str, data: str | Path | None = None) -> Iterator[Item]:
    """Definitions of WordNet, labelled with the lexicographers' file they are from; each is a source.

    Args:
        kind: `noun` or `verb`.
        data: a folder that files are looked for in first.
    """
    labels = {number: label for label, number in enumerate(NOUNS if kind == "noun" else VERBS)}
    with (find(WORDNET, data) / f"data.{kind}").open(encoding="utf-8") as file:
        for line in file:
            head, bar, gloss = line.partition(" | ")
            text = gloss.partition(';  "')[0].partition('; "')[0].strip()
            number = int(head.split()[1]) if bar and not line.startswith(" ") else -1
            if number in labels and len(text) > 15:
                yield Item(text, labels[number], text.lower())


def quotations(data: str | Path | None = None) -> Iterator[Item]:
    """Sayings of `fortune`, labelled with their topic; each is a source."""
    folder = find(FORTUNES, data)
    for label, topic in enumerate(TOPICS):
        for saying in (folder / topic).read_text(encoding="utf-8", errors="replace").split("\n%\n"):
            text = " ".join(saying.split())
            if 30 < len(text) < 400:
                yield Item(text, label, text.lower())


def novels(data: str | Path | None = None) -> Iterator[Item]:
    """Passages of about 200 letters of Jane Austen's novels; a source is a run of ten passages."""
    content = (find(AUSTEN, data) / AUSTEN.files).read_bytes()
    for label, lines in enumerate(r_strings(content)):
        whole = " ".join(" ".join(lines).split())
        passages = re.findall(r"(?:\S.{160,240}?[.!?;,])(?=\s|$)", whole)
        for place, text in enumerate(passages):
            yield Item(text, label, f"{NOVELS[label]} {place // 10}")


def r_strings(content: bytes) -> Iterator[list[str]]:
    """The vectors of strings in an .rdb file of R: compressed blocks, each of one serialised vector."""
    start = 0
    while start < len(content):
        block = zlib.decompressobj()
        found = block.decompress(content[start + 4 :])  # before it stands its length
        start = len(content) - len(block.unused_data)
        yield list(_strings(found))


def _strings(found: bytes) -> Iterator[str]:
    """Serialisation of R, version 3: a head, flags and length of the vector, then of each string."""
    encoding = struct.unpack_from(">i", found, 14)[0]
    place = 18 + encoding
    _, count = struct.unpack_from(">ii", found, place)
    place += 8
    for _ in range(count):
        _, length = struct.unpack_from(">ii", found, place)
        place += 8
        yield found[place : place + max(length, 0)].decode("utf-8", errors="replace")
        place += max(length, 0)

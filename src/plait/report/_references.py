"""BibTeX of the methods that were used, found by what their `reference` names."""

from __future__ import annotations

import re

from plait.methods import get_method
from plait.report._entry import Entry
from plait.report._publications import KNOWN
from plait.report._results import Results

_NUMBER = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


def references(results: Results) -> dict[Entry, list[str]]:
    """Publication → the models that were made by its method, in the models' order.

    Raises:
        InputError: `methods` names a method that plait doesn't have.
    """
    found: dict[str, tuple[Entry, list[str]]] = {}
    for model, method in results.methods.items():
        known = _NUMBER.fullmatch(method) is not None
        named = method if known else get_method(method, where="the report's methods").reference
        for entry in _of(named):
            found.setdefault(entry.key, (entry, []))[1].append(model)
    return dict(found.values())


def bibtex(method: str) -> str:
    """BibTeX of the publications behind a method.

    Args:
        method: a merging method's name, or `arXiv:` and a number.

    Raises:
        InputError: there is no such method.
    """
    known = _NUMBER.fullmatch(method) is not None
    named = method if known else get_method(method, where="BibTeX").reference
    return "\n".join(entry.bibtex() for entry in _of(named))


def _of(reference: str) -> list[Entry]:
    """The publications that a reference names; one that isn't known is cited by what is known of it."""
    numbers = _NUMBER.findall(reference)
    if numbers:
        return [KNOWN.get(number) or _bare(number) for number in numbers]
    if reference in KNOWN:
        return [KNOWN[reference]]
    page = "/" in reference and " " not in reference
    fields = {"title": reference, **({"url": f"https://{reference}"} if page else {})}
    return [Entry(re.sub(r"\W+", "_", reference).strip("_").lower(), fields)]


def _bare(number: str) -> Entry:
    fields = {"title": f"arXiv:{number}", "eprint": number, "archiveprefix": "arXiv"}
    return Entry(f"arxiv{number.replace('.', '_')}", {**fields, "url": f"https://arxiv.org/abs/{number}"})

"""One publication, in BibTeX and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Entry:
    """One publication.

    Args:
        key: in BibTeX.
        fields: in BibTeX's own writing.
        kind: of the entry.
    """

    key: str
    fields: Mapping[str, str]
    kind: str = "misc"

    @property
    def url(self) -> str:
        """Where it can be read, or nothing."""
        return self.fields.get("url", "")

    @property
    def told(self) -> str:
        """Author, title and year in words."""
        names = self.fields.get("author", "").split(" and ")
        first = names[0].split(",")[0]
        many = f"{first} et al." if len(names) > 2 else " and ".join(name.split(",")[0] for name in names)
        title = self.fields["title"].replace("{", "").replace("}", "")
        return ". ".join(part for part in (many.rstrip("."), title, self.fields.get("year", "")) if part)

    def bibtex(self) -> str:
        """The entry."""
        lines = "".join(f"  {name} = {{{value}}},\n" for name, value in self.fields.items())
        return f"@{self.kind}{{{self.key},\n{lines}}}\n"

"""A model's vocabulary: its tokens, their ids, and which of them have a row in its embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class AddedToken:
    """How a token outside the tokenizer's own model behaves; the fields are those of tokenizer.json."""

    special: bool = False
    normalized: bool = True
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary.

    Attributes:
        tokens: token → id, added tokens included.
        rows: rows of the embedding; a token whose id is not below it has none, so it counts as absent.
        added: those of `tokens` that were added to the tokenizer's own.
        folder: where the tokenizer's files lie; None for one made in memory.
    """

    tokens: Mapping[str, int]
    rows: int
    added: Mapping[str, AddedToken] = field(default_factory=dict)
    folder: Path | None = None

    def used(self) -> dict[str, int]:
        """The tokens that have a row, ordered by id."""
        pairs = [(token, row) for token, row in self.tokens.items() if row < self.rows]
        return dict(sorted(pairs, key=lambda pair: pair[1]))

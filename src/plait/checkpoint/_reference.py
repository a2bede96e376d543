"""The words that name a model: a path, `org/name@revision`, a URL, or two of them joined by `+`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9_][\w.-]*)?$")


@dataclass(frozen=True)
class Part:
    """One model or adapter: its name without the revision, and the revision."""

    name: str
    revision: str | None = None


@dataclass(frozen=True)
class Reference:
    """What a reference says: a model, and an adapter on top of it if one is named."""

    model: Part
    adapter: Part | None = None


def parse_reference(text: str) -> Reference:
    """Read `model`, `model@revision`, `model+adapter` or `model@revision+adapter@revision`.

    What exists as a path as it is written is that path, so paths may contain `+` and `@`.
    """
    if exists(text):
        return Reference(Part(text))
    splits = [
        (text[:k], text[k + 1 :]) for k, sign in enumerate(text) if sign == "+" and 0 < k < len(text) - 1
    ]
    splits = [(left, right) for left, right in splits if not _in_scheme(left, right)]
    if not splits:
        return Reference(_part(text))
    left, right = max(splits, key=lambda pair: _known(pair[0]) + _known(pair[1]))
    return Reference(_part(left), _part(right))


def _part(text: str) -> Part:
    # a URL's own grammar says what its @ means
    if "@" not in text or exists(text) or is_url(text):
        return Part(text)
    name, _, revision = text.partition("@") if not exists(text.rpartition("@")[0]) else text.rpartition("@")
    return Part(name, revision) if name and revision else Part(text)


def _known(text: str) -> int:
    """2 for a path that exists, 1 for a hub id or URL, 0 for what may be half of a path with a plus."""
    part = _part(text)
    return 2 if exists(part.name) else int(is_url(text) or is_hub_id(part.name))


def _in_scheme(left: str, right: str) -> bool:
    """Whether the plus belongs to a URL's scheme (`git+https://`)."""
    return bool(re.fullmatch(r"[a-zA-Z]+", left) and is_url(right) and not exists(left))


def exists(text: str) -> bool:
    """Whether something lies at this path."""
    try:
        return bool(text) and Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # a name too long, a null byte, no home
        return False


def is_url(text: str) -> bool:
    """Whether this is written as a URL (`hf://`, `s3://`, …)."""
    return bool(_URL.match(text))


def is_hub_id(text: str) -> bool:
    """Whether this could be the name of a model on the hub (`name` or `org/name`)."""
    return bool(_HUB_ID.match(text)) and ".." not in text and "--" not in text

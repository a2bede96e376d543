"""Two real models out of packages of PyPI, as plait's own suites find them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """A base and its fine-tunes, as folders."""

    base: str
    tuned: list[str]

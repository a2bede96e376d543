"""Numbers that YAML 1.1 takes for text: `1e-3` has no point."""

from __future__ import annotations

import re
from typing import Any

_WITH_EXPONENT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+")
#: Keys of a study below which settings stand.
_OF_SETTINGS = ("experts", "base", "branch", "ways")


def with_numbers(study: dict[str, Any]) -> dict[str, Any]:
    """A study's data where each text such as `1e-3` among settings is the number that it looks like."""
    return {key: _read(value) if key in _OF_SETTINGS else value for key, value in study.items()}


def is_number(text: Any) -> bool:
    """Whether a value is text that could be meant as a number."""
    if not isinstance(text, str):
        return False
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _read(held) for key, held in value.items()}
    if isinstance(value, list):
        return [_read(held) for held in value]
    return float(value) if isinstance(value, str) and _WITH_EXPONENT.fullmatch(value) else value

"""Text files that are whole or not there, whatever ends the process or fills the disk meanwhile."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_text(text: str, file: Path) -> None:
    """Put a text into a file; what was there before stays until the new text is on the disk."""
    begun = file.with_name(f"{file.name}.partial")
    try:
        with begun.open("w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        begun.replace(file)
    except OSError:
        begun.unlink(missing_ok=True)
        raise


def write_json(content: Any, file: Path, indent: int | None = 1) -> None:
    """Put plain values into a file, as JSON; `as_number` reads the numbers that JSON has no word for."""
    write_text(json.dumps(_told(content), indent=indent, allow_nan=False) + "\n", file)


def as_number(told: float | str | None) -> float:
    """A number as `write_json` told it: null is NaN, and `Infinity` is in quotes."""
    return math.nan if told is None else float(told)


def _told(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {name: _told(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_told(value) for value in content]
    if not isinstance(content, float) or math.isfinite(content):
        return content
    return None if math.isnan(content) else f"{'-' if content < 0 else ''}Infinity"

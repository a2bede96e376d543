"""Reading the small JSON files that lie beside weights."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from plait.checkpoint._files import unreadable
from plait.errors import InputError


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InputError: the file can't be read, is not JSON, or holds no object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"this is not valid JSON ({error})", where=str(path)) from error
    if not isinstance(value, dict):
        raise InputError(f"this holds a JSON {type(value).__name__}, not an object", where=str(path))
    return value


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`; `{}` where there is none."""
    path = folder / "config.json"
    return read_json(path) if path.is_file() else {}


def some(names: Iterable[str], limit: int = 5) -> str:
    """The first few names, quoted, and how many more there are."""
    listed = list(names)
    text = ", ".join(f"`{name}`" for name in listed[:limit])
    return f"{text} and {len(listed) - limit} more" if len(listed) > limit else text

"""Reading the small text and JSON files that lie beside weights."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from plait.checkpoint._files import unreadable
from plait.errors import InputError

#: Bytes of a file that is read whole: as many as safetensors allows for a header.
LARGEST_TEXT = 100_000_000


def read_text(path: Path, *, largest: int = LARGEST_TEXT) -> str:
    """The text in a file.

    Raises:
        InputError: the file can't be read, is larger than `largest` bytes, or is not UTF-8.
    """
    try:
        if path.stat().st_size > largest:
            raise InputError(f"such a file has at most {largest} bytes", where=str(path))
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise InputError(f"this is not UTF-8 text ({error})", where=str(path)) from error


def load_json(path: Path, *, largest: int = LARGEST_TEXT) -> Any:
    """The JSON value in a file.

    Raises:
        InputError: the file can't be read, is larger than `largest` bytes, or is not JSON.
    """
    try:
        return json.loads(read_text(path, largest=largest))
    except (ValueError, RecursionError) as error:
        raise InputError(f"this is not valid JSON ({error})", where=str(path)) from error


def read_json(path: Path, *, largest: int = LARGEST_TEXT) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InputError: the file can't be read, is larger than `largest` bytes, is not JSON, or holds no object.
    """
    value = load_json(path, largest=largest)
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

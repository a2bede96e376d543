"""Text files that are whole or not there, whatever ends the process or fills the disk meanwhile."""

from __future__ import annotations

import json
import os
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
    """Put plain values into a file, as JSON."""
    write_text(json.dumps(content, indent=indent) + "\n", file)

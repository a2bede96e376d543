"""Real text for a few steps of training: what the standard library says of itself."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable

#: Domain → modules whose functions describe themselves.
DOMAINS = {
    "numbers": ("math", "statistics", "random", "decimal", "fractions", "cmath"),
    "files": ("os", "os.path", "shutil", "pathlib", "tempfile", "zipfile", "glob"),
    "words": ("re", "textwrap", "string", "difflib", "json", "csv", "shlex", "html"),
}


def described(modules: Iterable[str]) -> list[tuple[str, str]]:
    """(name in words, first sentence of the documentation) of every public function, in a fixed order."""
    found: dict[str, str] = {}
    for module in modules:
        for name, value in sorted(vars(importlib.import_module(module)).items()):
            text = (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " ")
            words = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name).strip().lower()
            if callable(value) and not name.startswith("_") and 20 < len(text) < 200:
                found.setdefault(words, text)
    return list(found.items())


def texts() -> dict[str, str]:
    """Domain → some ten thousand characters: Python source, and two parts of Python's own help."""
    topics = importlib.import_module("pydoc_data.topics").topics
    return {
        "source": inspect.getsource(importlib.import_module("argparse"))[5000:15000],
        "statements": topics["assignment"][:10000],
        "types": topics["typesmapping"][:10000],
    }

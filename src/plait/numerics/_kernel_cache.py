"""Keeping compiled rules: source files under the hash of their text, where numba keeps its machine code."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LOCK = threading.Lock()
_LOADED: dict[str, Callable[..., Any]] = {}


@functools.cache
def _builders() -> str:
    """What a kernel has compiled into it besides its own text."""
    folder = Path(__file__).parent
    parts = [(folder / name).read_bytes() for name in ("_intrinsics.py", "_masks.py")]
    return hashlib.blake2b(b"".join(parts), digest_size=12).hexdigest()


def load(text: str) -> Callable[..., Any]:
    """The compiled kernel of a source text, from this process, the cache folder, or the compiler."""
    text += f"# built with {_builders()}\n"
    key = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
    with _LOCK:
        if key not in _LOADED:
            _LOADED[key] = _import(text, key)
        return _LOADED[key]


def user_cache() -> Path:
    """Where plait keeps what it can get again: `PLAIT_CACHE`, or `plait` in the user's cache folder."""
    given = os.environ.get("PLAIT_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(home) / "plait"


def cache_folder() -> Path:
    """Where kernels are kept."""
    return user_cache() / "kernels"


def _import(text: str, key: str) -> Callable[..., Any]:
    folder = cache_folder()
    path = folder / f"rule_{key}.py"
    try:
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            folder.mkdir(parents=True, exist_ok=True)
            own = folder / f".{key}.{os.getpid()}"
            own.write_text(text, encoding="utf-8")
            own.replace(path)
        spec = importlib.util.spec_from_file_location(f"plait_rule_{key}", path)
        if spec is None or spec.loader is None:
            raise OSError(path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module.kernel
    except OSError:
        # No place to keep it: compiled for this process alone.
        space: dict[str, Any] = {}
        exec(compile(text.replace("cache=True, ", ""), f"<rule {key}>", "exec"), space)
        return space["kernel"]

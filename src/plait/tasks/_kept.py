"""Folders in the user's cache that are made once, whole or not at all, by however many processes."""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from plait.checkpoint import disk_errors
from plait.errors import InputError
from plait.numerics import user_cache


def kept(name: str, make: Callable[[Path], object]) -> Path:
    """A folder of the cache; where it is not there, `make` fills it and it is renamed into place.

    Args:
        name: path below the cache, which says all that the content depends on.
        make: fills an empty folder; what it raises leaves nothing behind.

    Raises:
        InputError: the cache can't be written.
    """
    from filelock import FileLock

    folder = user_cache() / name
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if not folder.is_dir():
                _fill(folder, make)
    except OSError as error:
        raise InputError(
            f"can't be written ({error.strerror or error})",
            where=str(folder),
            hint="say with PLAIT_CACHE where plait may keep things",
        ) from error
    return folder


def _fill(folder: Path, make: Callable[[Path], object]) -> None:
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with disk_errors(folder):
            make(partial)
        partial.chmod(0o777 & ~_umask())
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def code_digest(*modules: str) -> str:
    """A fingerprint of some files' code, docstrings left out: what a result depends on besides data."""
    found = hashlib.blake2b(digest_size=8)
    for module in modules:
        tree = ast.parse(Path(module).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and _is_text(body[0]):
                body[0] = ast.Pass()
        found.update(ast.dump(tree).encode())
    return found.hexdigest()


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)

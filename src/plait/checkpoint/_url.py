"""Copies of what fsspec URLs point at, kept in a cache under the URL and the state that it was in.

The cache is `$PLAIT_CACHE`, else `plait` in the user's cache folder. An entry's name is a hash of the
URL and of every file's ETag, size and time of change, so a file that changes is fetched again. An entry is
written beside its place and renamed into it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plait.checkpoint._needed import needed_files
from plait.errors import InputError, MissingExtra, PlaitError

#: What file systems call the facts that change with a file's content.
_MARKS = ("ETag", "etag", "md5", "md5Hash", "contentHash", "content_md5", "version_id", "size")
_TIMES = ("mtime", "LastModified", "last_modified", "modified", "updated", "created")
#: Bytes copied at a time.
_PIECE = 1 << 22


@dataclass(frozen=True)
class _Remote:
    """One file: its path in its file system, the name it gets here, its size and what marks its state."""

    path: str
    name: str
    size: int | None
    mark: str | None


def fetch_url(url: str) -> Path:
    """Copy a URL's file or folder into the cache, unless it is there already.

    A local file system's path is returned as it is.

    Args:
        url: anything that fsspec opens.

    Raises:
        InputError: nothing is there, it can't be reached or read, or it was cut short.
        MissingExtra: fsspec, or its package for this kind of URL, is not installed.
    """
    shown = _shown(url)
    try:
        fs, root = _filesystem(url, shown)
        if type(fs).__name__ == "LocalFileSystem":
            return _local(Path(root), shown)
        files, single = _listing(fs, root, url, shown)
        return _cached(fs, files, url, shown) / (files[0].name if single else "")
    except PlaitError:
        raise
    except Exception as error:  # every file system has its own errors
        raise _unreachable(error, shown) from error


def cache_folder() -> Path:
    """Where copies are kept: `$PLAIT_CACHE`, else `plait` in `$XDG_CACHE_HOME` or `~/.cache`."""
    named = os.environ.get("PLAIT_CACHE")
    if named:
        return Path(named).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "plait"


def _shown(url: str) -> str:
    """The URL without the secrets that it may carry (user and password, signatures in its query)."""
    return re.sub(r"\?.*", "", re.sub(r"//[^/@]+@", "//", url))


def _filesystem(url: str, shown: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingExtra("fsspec", "remote", f"reading {shown}") from error
    try:
        return url_to_fs(url)
    except ImportError as error:
        package = re.search(r"(?:[Ii]nstall|requires) [`\"']?([\w-]+)", str(error))
        raise MissingExtra(package[1] if package else str(error), "remote", f"reading {shown}") from error
    except ValueError as error:
        from fsspec import available_protocols

        known = ", ".join(sorted(available_protocols()))
        hint = f"protocols known: {known}"
        raise InputError(f"fsspec can't open `{shown}`: {error}", hint=hint) from error


def _local(path: Path, shown: str) -> Path:
    if not path.exists():
        raise InputError("no such file or folder", where=shown)
    return path


def _listing(fs: Any, root: str, url: str, shown: str) -> tuple[list[_Remote], bool]:
    """The files to copy, and whether the URL is a file itself."""
    folder = url.endswith("/") or fs.isdir(root)
    if not folder:
        info = fs.info(root)
        name = re.sub(r"[^\w.+-]", "_", root.rstrip("/").rsplit("/", 1)[-1]) or "file"
        return [_described(root, name, info)], True
    found: Mapping[str, Mapping[str, Any]] = fs.find(root, detail=True)
    base = root.rstrip("/") + "/"
    infos = {path: info for path, info in found.items() if not path.endswith("/") and path.startswith(base)}
    if not infos:
        raise InputError("nothing is there", where=shown)
    paths = {path.removeprefix(base): path for path in infos}
    outside = [name for name in paths if ".." in name.split("/") or "\\" in name or name.startswith("/")]
    if outside:
        raise InputError(f"the name `{outside[0]}` leaves its folder", where=shown)
    names = needed_files(paths, "", shown)
    return [_described(paths[name], name, infos[paths[name]]) for name in names], False


def _described(path: str, name: str, info: Mapping[str, Any]) -> _Remote:
    size = info.get("size")
    marks = [f"{key}={info[key]}" for key in _MARKS if info.get(key) is not None]
    marks += [f"{key}={info[key]}" for key in _TIMES if info.get(key) is not None]
    # a size alone says little, but a server that gives no more has no better
    return _Remote(path, name, size if isinstance(size, int) else None, " ".join(marks) or None)


def _cached(fs: Any, files: list[_Remote], url: str, shown: str) -> Path:
    """The entry's folder, filled if it was not there."""
    marked = all(file.mark is not None for file in files)
    text = "\n".join([url, *(f"{file.name} {file.mark}" for file in files)])
    # what can't be told apart from its next version is never taken from the cache
    key = hashlib.sha256((text if marked else f"{text}\n{uuid.uuid4()}").encode()).hexdigest()[:32]
    final = cache_folder() / "remote" / key
    if final.is_dir():
        return final
    partial = final.with_name(f"{key}.{uuid.uuid4().hex[:8]}.partial")
    try:
        for file in files:
            _copy(fs, file, partial / file.name, shown)
        try:
            partial.rename(final)
        except OSError:
            if not final.is_dir():  # another process was not faster
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final


def _copy(fs: Any, file: _Remote, target: Path, shown: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with fs.open(file.path, "rb") as source, target.open("wb") as sink:
        while piece := source.read(_PIECE):
            sink.write(piece)
            count += len(piece)
    if file.size is not None and count != file.size:
        what = f"`{file.name}` came with {count} of {file.size} bytes"
        raise InputError(what, where=shown, hint="the connection was cut; try again")


def _unreachable(error: Exception, shown: str) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError("no such file or folder", where=shown)
    if isinstance(error, PermissionError) or "credentials" in str(error).lower():
        hint = "set the credentials that fsspec's file system for this protocol reads"
        return InputError(f"reading it is not permitted ({_first_line(error)})", where=shown, hint=hint)
    return InputError(
        f"it can't be fetched: {_first_line(error)}", where=shown, hint="check the URL and the connection"
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n", 1)[0]
    return f"{type(error).__name__}: {_shown(text)}" if text else type(error).__name__

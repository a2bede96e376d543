"""Chosen files out of wheels, source archives and Debian packages, written without root."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO

#: What an archive of Debian's (`ar`) starts with, and how long the head of a member is.
_AR, _HEAD = b"!<arch>\n", 60


def unpack(archive: Path, into: Path, wanted: Callable[[str], str | None]) -> int:
    """Write the wanted files of an archive.

    Args:
        archive: `.whl`, `.zip`, `.tar.*` or `.deb`.
        into: a folder.
        wanted: path in the archive → where it goes below `into`, None for what is left out.

    Returns:
        How many files were written.

    Raises:
        OSError, ValueError, tarfile.TarError, zipfile.BadZipFile: the archive can't be read.
    """
    if archive.suffix == ".deb":
        return _unpack_deb(archive, into, wanted)
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            names = [(name, target) for name in opened.namelist() if (target := wanted(name))]
            for name, target in names:
                _write(opened.open(name), into, target)
            return len(names)
    with tarfile.open(archive) as opened:
        return _unpack_tar(opened, into, wanted)


def chosen(files: str, inside: str = "") -> Callable[[str], str | None]:
    """What `unpack` takes: files that match a pattern below a folder of the archive.

    Args:
        files: a path or pattern below `inside`; `*` also spans folders.
        inside: a folder of the archive, possibly a pattern for its first part (`name-*`); empty for its root.
    """
    depth = len(PurePosixPath(inside).parts)

    def wanted(name: str) -> str | None:
        path = PurePosixPath(name.removeprefix("./"))
        head, rest = PurePosixPath(*path.parts[:depth]), PurePosixPath(*path.parts[depth:])
        if name.endswith("/") or not rest.parts or (depth and not fnmatchcase(str(head), inside)):
            return None
        here = files.startswith("**/") and fnmatchcase(str(rest), files[3:])
        return str(rest) if here or fnmatchcase(str(rest), files) else None

    return wanted


def _write(source: IO[bytes], into: Path, target: str) -> None:
    path = into / target
    if ".." in PurePosixPath(target).parts or PurePosixPath(target).is_absolute():
        raise ValueError(f"the archive has a file `{target}` outside of itself")
    path.parent.mkdir(parents=True, exist_ok=True)
    with source, path.open("wb") as out:
        shutil.copyfileobj(source, out)


def _unpack_tar(opened: tarfile.TarFile, into: Path, wanted: Callable[[str], str | None]) -> int:
    count = 0
    for member in opened:
        target = wanted(member.name) if member.isfile() else None
        source = opened.extractfile(member) if target else None
        if source is not None and target:
            _write(source, into, target)
            count += 1
    return count


def _unpack_deb(archive: Path, into: Path, wanted: Callable[[str], str | None]) -> int:
    """By Python alone where it can read the compression, else by dpkg-deb."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in _members(archive):
            if name.startswith("data.tar") and not name.endswith(".zst"):
                data = Path(folder) / name
                data.write_bytes(content)
                with tarfile.open(data) as opened:
                    return _unpack_tar(opened, into, wanted)
        data = Path(folder) / "data.tar"
        with data.open("wb") as out:
            subprocess.run(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=out, check=True)
        with tarfile.open(data) as opened:
            return _unpack_tar(opened, into, wanted)


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of an `ar` archive's members."""
    with archive.open("rb") as file:
        if file.read(len(_AR)) != _AR:
            raise ValueError(f"{archive.name} is no Debian package")
        while len(head := file.read(_HEAD)) == _HEAD:
            size = int(head[48:58])
            yield head[:16].decode("ascii").strip().rstrip("/"), file.read(size)
            file.read(size % 2)

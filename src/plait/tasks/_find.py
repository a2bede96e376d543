"""How files that live in a package are found: a folder the user names, the cache, then where they come from.

1. the folder `data` (or `PLAIT_DATA`): a subfolder with the source's name, or the package's own file
2. the cache (`PLAIT_CACHE`, or `plait` in the user's cache folder)
3. each of the source's packages in turn: as it is installed here, or downloaded

Whatever is found is checked by its blake3 digest before it is used.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from plait.errors import InputError
from plait.numerics import user_cache
from plait.tasks._kept import kept
from plait.tasks._packages import NotThere, Package


class Unavailable(InputError):
    """Files that can't be had here; a suite goes on without the task that needs them."""


#: Seconds for which what could not be had is not asked for again: tasks of one suite share sources.
_PATIENCE = 60.0
_ASKED: dict[str, tuple[float, Unavailable]] = {}


@dataclass(frozen=True)
class Source:
    """Files that come in a package.

    Args:
        name: what plait calls them, and their subfolder in a user's folder.
        files: a path, or a pattern of paths (`**` for any folders); relative to the packages' `inside`.
        digest: blake3 of the file; of the lines "digest, two spaces, path" of the sorted paths for a pattern.
        packages: where they come from, the preferred first.
        licence: of the files.
    """

    name: str
    files: str
    digest: str
    packages: tuple[Package, ...]
    licence: str

    def paths(self, root: Path) -> list[Path]:
        """The files below a folder, sorted by their path."""
        found = [path for path in root.glob(self.files) if path.is_file()]
        return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def find(source: Source, data: str | Path | None = None) -> Path:
    """The folder that a source's files lie in, digest checked.

    Args:
        source: what is looked for.
        data: a folder that is looked at first; `PLAIT_DATA` if None.

    Raises:
        InputError: `data` is no folder, or a digest is wrong.
        Unavailable: the files can't be had.
    """
    given = data if data is not None else os.environ.get("PLAIT_DATA") or None
    if given is not None and (found := _in_folder(source, Path(given))):
        return found
    place = f"data/{source.name}-{source.digest[:12]}"
    if not (user_cache() / place).is_dir() and (found := _installed(source)):
        return found
    asked, error = _ASKED.get(place, (-_PATIENCE, None))
    if error is not None and time.monotonic() - asked < _PATIENCE:
        raise error
    try:
        found = kept(place, lambda folder: _fetch(source, folder))
    except Unavailable as error:
        _ASKED[place] = time.monotonic(), error
        raise
    _check(source, found, hint=f"delete {found} and try again")
    return found


def _installed(source: Source) -> Path | None:
    """Where an installed package holds the files; one of another version may hold others."""
    for package in source.packages:
        root = package.installed()
        if root and source.paths(root) and digest_of(source, root) == source.digest:
            return root
    return None


def digest_of(source: Source, root: Path) -> str:
    """The digest of a source's files as they lie below a folder; see `Source`."""
    paths = source.paths(root)
    digests = [blake3(max_threads=1).update_mmap(path).hexdigest() for path in paths]
    if "*" not in source.files and len(digests) == 1:
        return digests[0]
    lines = [f"{d}  {p.relative_to(root).as_posix()}\n" for d, p in zip(digests, paths, strict=True)]
    return blake3("".join(lines).encode()).hexdigest()


def _in_folder(source: Source, data: Path) -> Path | None:
    """The files in the user's folder, or in a package's file that lies in it."""
    if not data.is_dir():
        raise InputError("there is no such folder", where=str(data), hint="`data` or PLAIT_DATA names it")
    if source.paths(data / source.name):
        _check(source, data / source.name, hint="put the right file there, or take this one away")
        return data / source.name
    for package in source.packages:
        for archive in (path for pattern in package.archives() for path in data.glob(pattern)):

            def make(
                folder: Path, package: Package = package, archive: Path = archive
            ) -> None:  # bound now: both change with the loop
                package.unpack(archive, source.files, folder)
                _check(source, folder, told=str(archive))

            return kept(f"data/{source.name}-{source.digest[:12]}", make)
    return None


def _fetch(source: Source, folder: Path) -> None:
    reasons = []
    for package in source.packages:
        try:
            count = package.fetch(source.files, folder)
        except NotThere as error:
            reasons.append(f"{package}: {error}")
            continue
        if count:
            _check(source, folder, told=f"{source.files} of the {package}")
            return
        reasons.append(f"{package}: it has no `{source.files}`")
    raise Unavailable(
        f"`{source.name}` can't be had ({'; '.join(reasons)})",
        hint=f"put {_wanted(source.packages)} into a folder and name it with PLAIT_DATA",
    )


def _wanted(packages: Sequence[Package]) -> str:
    files = [f"`{package.archives()[0]}`" for package in packages if package.archives()]
    return " or ".join(files) or "its files"


def _check(source: Source, root: Path, *, told: str = "", hint: str | None = None) -> None:
    """Raise InputError where the files below a folder are not the expected ones."""
    found = digest_of(source, root)
    if found != source.digest:
        raise InputError(
            f"`{source.name}` has the digest {found}, and {source.digest} is expected",
            where=told or str(root / source.files),
            hint=hint or "the file is damaged or of another version",
        )

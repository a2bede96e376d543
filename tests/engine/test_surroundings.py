"""What the machine does to a run: full disks, forbidden folders, files that shrink, runs beside each other.

Each command is a process of its own, as limits and users belong to processes.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

_RECIPE = "merge: linear\nmodels: [a, b]\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for seed, name in enumerate("ab"):
        values = torch.randn(600, 1000, generator=torch.Generator().manual_seed(seed))
        (tmp_path / name).mkdir()
        save_file({"v": values[:3].clone(), "w": values}, tmp_path / name / "model.safetensors")
    (tmp_path / "recipe.yml").write_text(_RECIPE)
    return tmp_path


def program(before: str, *words: str) -> list[str]:
    """`plait merge recipe.yml …` after some lines of Python."""
    lines = [
        textwrap.dedent(before),
        "from plait.cli import main",
        f"main({['merge', 'recipe.yml', *words]!r})",
    ]
    return [sys.executable, "-c", "\n".join(lines)]


def run(place: Path, before: str, *words: str, humbly: bool = False) -> subprocess.CompletedProcess[str]:
    """The program run to its end in the place; humbly: without root's right to pass over permissions."""
    return subprocess.run(
        program(before, *words),
        cwd=place,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=drop_rights if humbly and os.getuid() == 0 else None,
    )


def drop_rights() -> None:
    """Take what lets root read and write everything from this process and those that it starts."""
    library = ctypes.CDLL(None, use_errno=True)
    drop_from_bounding_set, rights = 24, {"CAP_DAC_OVERRIDE": 1, "CAP_DAC_READ_SEARCH": 2}
    for name, number in rights.items():
        if library.prctl(drop_from_bounding_set, number, 0, 0, 0):
            raise OSError(ctypes.get_errno(), f"{name} can't be dropped")


def told(found: subprocess.CompletedProcess[str]) -> str:
    """The one message of a command that failed through no fault of plait's."""
    assert found.returncode == 2, found.stderr
    assert "Traceback" not in found.stderr
    assert found.stderr.startswith("plait: ")
    return found.stderr


def test_a_disk_that_fills_while_it_is_written_to_is_told_and_the_run_can_go_on(place):
    limit = """
        import resource, plait
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
    """
    message = told(run(place, limit, "-o", "out"))
    assert "out" in message
    assert not (place / "out").exists()
    assert run(place, "", "-o", "out", "--resume").returncode == 0
    assert run(place, "", "-o", "again").returncode == 0
    assert (place / "out" / "model.safetensors").read_bytes() == (
        place / "again" / "model.safetensors"
    ).read_bytes()


@pytest.fixture
def small(place: Path) -> Iterator[Path]:
    """A real file system of 1 MB; where none may be mounted, a folder."""
    target = place / "small"
    target.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "plait-test", str(target)]
    mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    yield target
    if mounted:
        subprocess.run(["umount", str(target)], check=True)


def test_space_that_does_not_suffice_is_told_before_the_first_byte(place, small):
    tight = """
        import collections, shutil
        whole = shutil.disk_usage
        space = collections.namedtuple("space", "total used free")
        shutil.disk_usage = lambda path: min(whole(path), space(1 << 20, 0, 1 << 20), key=lambda s: s.free)
    """
    message = told(run(place, tight, "-o", "small/out"))
    assert "small" in message
    assert "takes 2.4 MB, and 1.0 MB are free" in message
    assert list(small.iterdir()) == []


@pytest.mark.parametrize("closed", ["where the output goes", "an input"])
def test_a_folder_without_permission_is_named(place, closed):
    (place / "locked").mkdir()
    target, mode = (place / "a", 0o000) if closed == "an input" else (place / "locked", 0o555)
    target.chmod(mode)
    try:
        message = told(run(place, "", "-o", "free" if closed == "an input" else "locked/out", humbly=True))
    finally:
        target.chmod(0o755)
    assert f"{target.name}" in message
    assert "ermission" in message or "can't be written" in message
    assert {path.name for path in place.iterdir()} == {"a", "b", "locked", "recipe.yml"}
    assert list((place / "locked").iterdir()) == []


def test_an_input_that_shrinks_while_it_is_read_is_named(place):
    shrinks = """
        import os
        from plait.engine import _run
        begin = _run.Runner.run
        def run(self):
            os.truncate("b/model.safetensors", 5000)
            return begin(self)
        _run.Runner.run = run
    """
    message = told(run(place, shrinks, "-o", "out"))
    assert "b/model.safetensors" in message.replace(os.sep, "/")
    assert not (place / "out").exists()


def test_of_two_runs_into_one_target_the_second_is_told(place):
    waits = """
        import sys
        from plait.engine import _run
        begin = _run.Runner.run
        def run(self):
            print("begun", flush=True)
            sys.stdin.readline()
            return begin(self)
        _run.Runner.run = run
    """
    first = subprocess.Popen(
        program(waits, "-o", "out"), cwd=place, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    assert "begun\n" in iter(first.stdout.readline, "")
    message = told(run(place, "", "-o", "out", "--resume"))
    assert "out" in message
    first.communicate("\n", timeout=300)
    assert first.returncode == 0
    assert (place / "out" / "plait.json").is_file()

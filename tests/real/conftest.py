"""Real models and light fine-tunes of them, made once per session for all of its workers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from packages import Family
from training import tune_minilm, tune_smollm2

from plait.tasks import find
from plait.tasks.suites import smollm2
from plait.tasks.suites._sources import MINILM, SMOLLM2


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """name, maker → a folder that the first worker who asks for it has made."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def get(name: str, make: Callable[[Path], object]) -> Path:
        with FileLock(root / f"{name}.lock"):
            if not (root / name).exists():
                partial = root / f"{name}.partial"
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                make(partial)
                partial.rename(root / name)
        return root / name

    return get


@pytest.fixture(scope="session")
def minilm() -> Path:
    return find(MINILM)


@pytest.fixture(scope="session")
def minilm_family(shared, minilm) -> Family:
    root = shared("minilm", lambda folder: tune_minilm(minilm, folder))
    return Family(str(minilm), [str(path) for path in sorted(root.iterdir())])


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    return find(SMOLLM2) / SMOLLM2.files


@pytest.fixture(scope="session")
def smollm2_family(shared) -> Family:
    def make(root: Path) -> None:
        shutil.copytree(smollm2.model_folder(), root / "base")
        tune_smollm2(root / "base", root)

    root = shared("smollm2", make)
    tuned = [str(path) for path in sorted(root.iterdir()) if path.name != "base"]
    return Family(str(root / "base"), tuned)

"""Safetensors files are whole or as they were, and a full disk is an error of the system."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from plait.checkpoint import disk_errors, save_module, save_tensors

Disk = Callable[[int], AbstractContextManager[None]]
WRITERS: dict[str, Callable[[float, Path], None]] = {
    "tensors": lambda value, file: save_tensors({"weight": torch.full((64, 64), value)}, file),
    "a module": lambda value, file: save_module(filled(value), file),
}


def filled(value: float) -> nn.Module:
    module = nn.Linear(64, 64, bias=False)
    nn.init.constant_(module.weight, value)
    return module


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("room", [0, 5000])
def test_a_full_disk_leaves_the_file_of_before(kind: str, room: int, tmp_path: Path, full_disk: Disk) -> None:
    file = tmp_path / "model.safetensors"
    WRITERS[kind](1.0, file)
    with full_disk(room), pytest.raises(OSError, match="File too large") as caught:
        WRITERS[kind](2.0, file)
    assert caught.value.filename == str(file)
    assert [p.name for p in tmp_path.iterdir()] == [file.name]
    assert torch.equal(load_file(file)["weight"], torch.ones(64, 64))
    WRITERS[kind](2.0, file)
    assert torch.equal(load_file(file)["weight"], torch.full((64, 64), 2.0))


def test_what_is_no_error_of_the_system_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(SafetensorError, match="of another kind"), disk_errors(tmp_path):
        raise SafetensorError("of another kind")


def test_a_module_s_shared_weights_are_written_once(tmp_path: Path) -> None:
    first = nn.Linear(4, 4, bias=False)
    save_module(nn.Sequential(first, first), tmp_path / "tied.safetensors")
    assert list(load_file(tmp_path / "tied.safetensors")) == ["0.weight"]

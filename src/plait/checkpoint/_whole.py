"""Safetensors files that are whole or as they were, whatever ends the process or fills the disk meanwhile."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn

#: What safetensors says of a system's error.
_OF_SYSTEM = re.compile(r"\(os error (\d+)\)")


def save_tensors(
    tensors: Mapping[str, Tensor], file: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors into a file; what was there before stays until all are on the disk.

    Raises:
        OSError: it can't be written.
    """
    from safetensors.torch import save_file

    told = None if metadata is None else dict(metadata)
    _write(lambda begun: save_file(dict(tensors), begun, told), file)


def save_module(module: nn.Module, file: Path) -> None:
    """Write a module's weights and buffers, those that it has under several names once.

    Raises:
        OSError: it can't be written; what was there before stays.
    """
    from safetensors.torch import save_model

    _write(lambda begun: save_model(module, str(begun)), file)


@contextmanager
def disk_errors(file: Path) -> Iterator[None]:
    """What safetensors raises where the system can't write is an OSError, as of everything else."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        found = _OF_SYSTEM.search(str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(file)) from error


def _write(write: Callable[[Path], None], file: Path) -> None:
    begun = file.with_name(f"{file.name}.partial")
    try:
        with disk_errors(file):
            write(begun)
        with begun.open("rb+") as opened:
            os.fsync(opened.fileno())
        begun.replace(file)
    except BaseException:
        begun.unlink(missing_ok=True)
        raise

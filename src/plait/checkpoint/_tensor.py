"""What every checkpoint is made of: a name, a shape, a dtype, and bytes that are read on demand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from plait.errors import InputError

#: rows of a tensor are its last axis; a scalar is one row of one element.
Shape = tuple[int, ...]


def numel(shape: Shape) -> int:
    """Number of elements of a shape; 1 for a scalar."""
    return math.prod(shape)


def row_length(shape: Shape) -> int:
    """Length of a row (the last axis); 1 for a scalar."""
    return shape[-1] if shape else 1


@runtime_checkable
class LazyTensor(Protocol):
    """A tensor that is not read until asked.

    Attributes:
        name: its name in the checkpoint.
        shape: its shape.
        dtype: the type that reading gives.
        nbytes: bytes that reading it whole takes from its source (a disk, a network).
    """

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> Shape: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def nbytes(self) -> int: ...

    def read(self) -> Tensor:
        """The whole tensor, in its own shape and dtype."""
        ...

    def read_rows(self, start: int, stop: int) -> Tensor:
        """Rows `start:stop` as `(stop - start, row length)`; a row is the last axis.

        Raises:
            InputError: there are fewer rows, or the source can't be read.
        """
        ...

    def read_flat(self, start: int, stop: int) -> Tensor:
        """Elements `start:stop` of the flattened (row-major) tensor, as a 1-D CPU tensor of `dtype`.

        Thread-safe. The result belongs to the caller. The same elements come out bit for bit the
        same whatever range they are read in.

        Raises:
            InputError: the source is gone, shorter than its header says, or unreadable.
        """
        ...


class ReadFlat:
    """A lazy tensor's `read` and `read_rows`, by way of its `read_flat`."""

    __slots__ = ()

    def read(self: LazyTensor) -> Tensor:
        return self.read_flat(0, numel(self.shape)).reshape(self.shape)

    def read_rows(self: LazyTensor, start: int, stop: int) -> Tensor:
        width = row_length(self.shape)
        rows = numel(self.shape[:-1])
        if not 0 <= start <= stop <= rows:
            raise InputError(f"rows {start}:{stop} are not among its {rows}", where=f"tensor `{self.name}`")
        return self.read_flat(start * width, stop * width).reshape(stop - start, width)

    def __repr__(self: LazyTensor) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        return f"{type(self).__name__}({self.name!r}, {kind}, {list(self.shape)})"


@dataclass(frozen=True)
class Sidecar:
    """A non-weight file that travels with a checkpoint: its relative POSIX path and where it lies."""

    name: str
    path: Path


@dataclass(frozen=True)
class Checkpoint(Mapping[str, LazyTensor]):
    """A read-only mapping from names to lazy tensors, plus what travels with them.

    Attributes:
        reference: the words with which the user named it (a path, a hub id, `base+adapter`).
        tensors: name → lazy tensor, in the order of the file(s).
        config: the parsed `config.json` (`{}` where there is none).
        folder: the local folder it came from, or None (a single file, a live module).
        sidecars: config, tokenizer, generation config, processor and every other non-weight file.
        revision: the hub commit found, where it came from the hub.
        tied: alias name → name of the stored tensor, for tied weights that are not stored twice.
        fingerprint: `{relative file: "size-mtime_ns-headerhash"}` of each weight file; a live module
            has `{}`.
        adapter: the folder of the adapter that is laid over it.
        extras: writes into a folder what travels with it and lies in no file of its own.
    """

    reference: str
    tensors: Mapping[str, LazyTensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    sidecars: tuple[Sidecar, ...] = ()
    revision: str | None = None
    tied: Mapping[str, str] = field(default_factory=dict)
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    adapter: Path | None = None
    extras: Callable[[Path], None] | None = None

    def __getitem__(self, name: str) -> LazyTensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __repr__(self) -> str:
        return f"Checkpoint({self.reference!r}, {len(self)} tensors)"

"""The header of a GGUF file, every length checked against the file before it is believed.

The format: `GGUF`, version, counts, metadata (key, type, value), tensor infos (name, dimensions with
the fastest first, type, offset), padding, data. All little-endian here.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

from plait.checkpoint._files import SourceFile
from plait.checkpoint._safetensors import LONGEST_NAME
from plait.checkpoint._tensor import Shape
from plait.errors import InputError

_PAGE = 1 << 20
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_STRING, _ARRAY = 8, 9
_LARGEST_RANK = 8
#: What transformers builds as many modules of as the metadata says, whatever tensors there are.
_REPEATED = (".block_count", ".expert_count")


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as the header has it.

    Attributes:
        name: llama.cpp's name.
        shape: row-major.
        kind: number of its GGML type.
        offset: byte of the file at which it begins.
    """

    name: str
    shape: Shape
    kind: int
    offset: int


class _Cursor:
    """Walks through a file's first bytes, a page at a time."""

    def __init__(self, file: SourceFile) -> None:
        self.file, self.place = file, 0
        self._page, self._start = b"", 0

    def error(self, what: str) -> InputError:
        return InputError(f"{what} (at byte {self.place})", where=str(self.file.path))

    def take(self, count: int) -> bytes:
        if self.place + count > self.file.size:
            raise self.error(f"the header wants {count} bytes more than the file has; it was cut short")
        first = self.place - self._start
        if first + count > len(self._page):
            self._start, first = self.place, 0
            self._page = self.file.read(self.place, min(max(count, _PAGE), self.file.size - self.place))
        self.place += count
        return self._page[first : first + count]

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def text(self) -> str:
        try:
            return self.take(self.number("Q")).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error("the header has a name that is not UTF-8") from error

    def skip(self, kind: int) -> Any:
        """Step over a value of the metadata; scalars and strings (as bytes) are returned."""
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.take(self.number("Q"))
        if kind != _ARRAY:
            raise self.error(f"the header has a value of the unknown type {kind}")
        item, count = self.number("I"), self.number("Q")
        if item in _SCALARS:
            self.take(count * struct.calcsize(f"<{_SCALARS[item]}"))
        elif item == _STRING:
            for _ in range(count):
                self.take(self.number("Q"))
        else:
            raise self.error(f"the header has an array of the type {item}")
        return None


def read_header(file: SourceFile) -> tuple[str, list[TensorInfo]]:
    """The architecture that a GGUF file names and its tensors, in the header's order.

    Raises:
        InputError: the file is no GGUF file of version 2 or 3, is cut short, or contradicts itself.
    """
    cursor = _Cursor(file)
    if file.size < 24 or cursor.take(4) != b"GGUF":
        raise InputError("this is not a GGUF file", where=str(file.path))
    version = cursor.number("I")
    if version not in (2, 3):
        hint = "big-endian files and version 1 are not read" if version in (1, 2 << 24, 3 << 24) else None
        raise InputError(
            f"its GGUF version is {version}, and plait reads 2 and 3", where=str(file.path), hint=hint
        )
    tensors, pairs = cursor.number("Q"), cursor.number("Q")
    alignment, architecture = 32, b""
    counts: dict[str, int] = {}
    for _ in range(pairs):
        key, kind = cursor.text(), cursor.number("I")
        value = cursor.skip(kind)
        if key == "general.alignment":
            alignment = value
        if key == "general.architecture" and isinstance(value, bytes):
            architecture = value
        if key.endswith(_REPEATED) and isinstance(value, int):
            counts[key] = value
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise cursor.error(f"its alignment {alignment!r} is not a power of two")
    infos = [_info(cursor) for _ in range(tensors)]
    data = -(-cursor.place // alignment) * alignment
    found = [TensorInfo(info.name, info.shape, info.kind, data + info.offset) for info in infos]
    if len({info.name for info in found}) != len(found):
        raise cursor.error("the header has a tensor twice")
    largest = max([len(found), *(size for info in found for size in info.shape)], default=0)
    for key, count in counts.items():
        if count > (len(found) if key.endswith(_REPEATED[0]) else largest):
            raise cursor.error(f"its `{key:.100}` is {count}, and it has {len(found)} tensors")
    return architecture.decode("utf-8", "replace"), found


def _info(cursor: _Cursor) -> TensorInfo:
    name, rank = cursor.text(), cursor.number("I")
    if len(name) > LONGEST_NAME:
        raise cursor.error(f"tensor `{name:.100}` has a name of {len(name)} characters")
    if rank > _LARGEST_RANK:
        raise cursor.error(f"tensor `{name:.100}` has {rank} dimensions")
    shape = tuple(cursor.number("Q") for _ in range(rank))[::-1]
    if math.prod(size or 1 for size in shape) >= 1 << 62:
        raise cursor.error(f"tensor `{name:.100}` is too large: {list(shape)}")
    return TensorInfo(name, shape, cursor.number("I"), cursor.number("Q"))

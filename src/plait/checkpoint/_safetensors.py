"""One safetensors file: its header checked to the last byte, its tensors read by offset.

The format: 8 bytes (little-endian) with the header's length, the header (JSON: name → dtype, shape,
data_offsets; `__metadata__` maps strings to strings), then the tensors' bytes without gap or overlap.
"""

from __future__ import annotations

import gc
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from plait.checkpoint._files import SourceFile, source_file
from plait.checkpoint._tensor import ReadFlat, Shape
from plait.errors import InputError, nearest

#: The format's own bound on a header; a larger length means that this is another kind of file.
LARGEST_HEADER = 100_000_000
#: Characters of a tensor's name; finding layers takes the square of it.
LONGEST_NAME = 1024
_LARGEST_RANK = 64
_LARGEST_NUMEL = 2**63
_KEYS = {"dtype", "shape", "data_offsets"}

_TORCH_NAMES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "U16": "uint16",
    "I32": "int32",
    "U32": "uint32",
    "I64": "int64",
    "U64": "uint64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "C64": "complex64",
}
#: safetensors' name of a type → torch's type, as far as this torch has it.
DTYPES: dict[str, torch.dtype] = {
    key: getattr(torch, name) for key, name in _TORCH_NAMES.items() if hasattr(torch, name)
}
DTYPE_NAMES: dict[torch.dtype, str] = {dtype: key for key, dtype in DTYPES.items()}


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class FileTensor(ReadFlat):
    """A tensor that lies in a file as plain little-endian elements; a `LazyTensor`.

    Attributes:
        name: its name.
        shape: its shape.
        dtype: its type.
        file: the file it lies in.
        offset: byte of the file at which it begins.
    """

    name: str
    shape: Shape
    dtype: torch.dtype
    file: SourceFile
    offset: int

    @property
    def path(self) -> Path:
        """The file it lies in."""
        return self.file.path

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def read_flat(self, start: int, stop: int) -> Tensor:
        out = torch.empty(stop - start, dtype=self.dtype)
        self.read_into(out, start)
        return out

    def read_into(self, out: Tensor, start: int) -> None:
        """Fill `out` (1-D, contiguous, CPU, of this dtype) with the elements from `start` on. Thread-safe.

        Raises:
            InputError: the file is gone, changed, shorter than its header says, or unreadable.
            ValueError: `out` has another type or layout, or the range leaves the tensor.
        """
        if out.dtype != self.dtype or out.dim() != 1 or not out.is_contiguous() or out.device.type != "cpu":
            raise ValueError(f"`out` must be a contiguous 1-D CPU tensor of {self.dtype}")
        if start < 0 or start + len(out) > math.prod(self.shape):
            raise ValueError(f"elements {start}:{start + len(out)} of {self.name} {self.shape}")
        if len(out):
            self.read_bytes(memoryview(cast("Any", out.view(torch.uint8).numpy())), start)

    def read_bytes(self, view: memoryview, start: int) -> None:
        """Fill `view` with the bytes of the elements from `start` on; the range is the caller's to keep."""
        try:
            self.file.read_into(view, self.offset + start * self.dtype.itemsize)
        except InputError as error:
            raise InputError(
                error.what, where=f"{error.where}: tensor `{self.name}`", hint=error.hint
            ) from error


@dataclass(frozen=True)
class SafetensorsFile:
    """What one file's header says.

    Attributes:
        file: the file.
        header: the header's bytes (JSON), as they lie in the file.
        metadata: the header's `__metadata__`.
        tensors: name → tensor, in the order of their bytes in the file.
    """

    file: SourceFile
    header: bytes
    metadata: Mapping[str, str]
    tensors: Mapping[str, FileTensor]


def open_safetensors(path: Path) -> SafetensorsFile:
    """Read and check the header of one safetensors file; no tensor is read.

    Raises:
        InputError: the file is not there or its header is not exactly what the format allows.
    """
    file = source_file(path)
    header = _read_header(file)
    with _no_collection():
        metadata, spans = _parse(header, path)
        start = 8 + len(header)
        spans.sort(key=itemgetter(3, 4))
        _check_spans(spans, file.size - start, path)
        tensors = {
            name: FileTensor(name, shape, dtype, file, start + a) for name, shape, dtype, a, _ in spans
        }
    return SafetensorsFile(file, header, metadata, tensors)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without the cyclic collector, which would walk the growing result again and again (half the time)."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


_Span = tuple[str, Shape, torch.dtype, int, int]


def _read_header(file: SourceFile) -> bytes:
    where = str(file.path)
    if file.size < 8:
        raise InputError(
            f"it has {file.size} bytes, too few for a safetensors file (cut short or empty)", where=where
        )
    length = int.from_bytes(file.read(0, 8), "little")
    if length > LARGEST_HEADER:
        raise InputError(
            f"its first 8 bytes announce a header of {length} bytes, and a safetensors header has at most "
            f"{LARGEST_HEADER}; this is not a safetensors file, or it is corrupt",
            where=where,
        )
    if 8 + length > file.size:
        raise InputError(
            f"its header of {length} bytes does not fit into the file's {file.size} bytes; it was cut short",
            where=where,
        )
    return file.read(8, length)


def _parse(header: bytes, path: Path) -> tuple[dict[str, str], list[_Span]]:
    where = str(path)
    try:
        # objects as tuples of pairs: C does it all, repeated keys stay visible, and arrays stay lists
        pairs = json.loads(header.decode("utf-8"), object_pairs_hook=tuple, parse_float=str)
        if not header.startswith(b"{") or not isinstance(pairs, tuple):
            raise InputError("the header is not a JSON object", where=where)
        entries = dict(pairs)
        "".join(entries).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError("the header has a tensor name that is not valid Unicode", where=where) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"the header is not valid JSON ({error})", where=where) from error
    if len(entries) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise InputError(f"the header has tensor {twice!r} twice", where=where)
    metadata = _metadata(entries.pop("__metadata__", ()), where)
    # Kinds that were checked: a large model has a few, over and over. True equals 1, so it must not be there.
    known: _Kinds | None = None if b"true" in header or b"false" in header else {}
    return metadata, [_entry(name, entry, path, known) for name, entry in entries.items()]


def _metadata(pairs: object, where: str) -> dict[str, str]:
    if not isinstance(pairs, tuple) or not all(isinstance(value, str) for _, value in pairs):
        raise InputError("`__metadata__` in the header is not a mapping of strings to strings", where=where)
    return dict(pairs)


#: dtype and shape as they are written → as they are read, and their bytes.
_Kinds = dict[tuple[str, tuple[int, ...]], tuple[torch.dtype, Shape, int]]


def _entry(name: str, pairs: object, path: Path, known: _Kinds | None) -> _Span:
    """One tensor's entry, checked by itself: types, signs, size against shape and dtype."""
    if known and len(name) <= LONGEST_NAME:
        try:
            (a, key), (b, shape), (c, (start, stop)) = pairs  # type: ignore[misc]
            if a == "dtype" and b == "shape" and c == "data_offsets":
                dtype, sizes, expected = known[key, tuple(shape)]
                plain = type(start) is type(stop) is int and 0 <= start < _LARGEST_NUMEL
                if plain and stop - start == expected:
                    return name, sizes, dtype, start, stop
        except (TypeError, ValueError, KeyError):
            pass  # what is wrong with it, if anything, is told below
    return _checked_entry(name, pairs, path, known)


def _checked_entry(name: str, pairs: object, path: Path, known: _Kinds | None) -> _Span:
    if len(name) > LONGEST_NAME:
        raise _bad(path, name, f"its name has {len(name)} characters, and at most {LONGEST_NAME} are read")
    entry = dict(pairs) if isinstance(pairs, tuple) else {}
    if len(entry) != 3 or len(cast(tuple[object], pairs)) != 3 or entry.keys() != _KEYS:
        raise _bad(path, name, f"its header entry is {pairs!r:.100}, not one dtype, shape and data_offsets")
    key, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    dtype = DTYPES.get(key) if isinstance(key, str) else None
    if dtype is None:
        raise _bad(path, name, f"its dtype {key!r:.60} is unknown", nearest(str(key)[:60], DTYPES))
    if not _counts(shape) or len(shape) > _LARGEST_RANK:
        raise _bad(path, name, f"its shape {shape!r:.60} is not a list of sizes")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _bad(path, name, f"its data_offsets {offsets!r:.60} are not a start and a stop")
    start, stop = offsets
    expected = math.prod(shape) * dtype.itemsize
    if expected == 0 and math.prod(size or 1 for size in shape) >= _LARGEST_NUMEL:
        raise _bad(path, name, f"its shape {shape!r:.60} is too large")
    if stop - start != expected:
        found = f"its data_offsets {offsets!r:.60} have {stop - start}"
        raise _bad(path, name, f"{key} {shape!r:.60} takes {expected} bytes and {found}")
    sizes = tuple(shape)
    if known is not None:
        known[cast(str, key), sizes] = dtype, sizes, expected
    return name, sizes, dtype, start, stop


def _counts(value: object) -> bool:
    if not isinstance(value, list):
        return False
    # `type(...) is int`, as JSON's true and false are ints to isinstance
    return all(type(item) is int and 0 <= item < _LARGEST_NUMEL for item in value)


def _bad(path: Path, name: str, what: str, hint: str | None = None) -> InputError:
    return InputError(what, where=f"{path}: tensor {name!r:.200}", hint=hint)


def _check_spans(spans: list[_Span], available: int, path: Path) -> None:
    """The tensors cover the file's data from first to last byte, without gap or overlap."""
    end = 0
    for name, _, _, start, stop in spans:
        if start < end:
            raise _bad(path, name, f"its bytes {start}:{stop} overlap those of another tensor")
        if start > end:
            raise _bad(path, name, f"bytes {end}:{start} before it belong to no tensor")
        if stop > available:
            have = f"the file has {available} bytes of data; it was cut short"
            raise _bad(path, name, f"its bytes end at {stop} and {have}")
        end = stop
    if end != available:
        raise InputError(f"the file has {available - end} bytes after its last tensor", where=str(path))

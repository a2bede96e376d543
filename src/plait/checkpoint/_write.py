"""Writing safetensors: shards laid out before any data exists, and whole checkpoints written in one go."""

from __future__ import annotations

import json
import math
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from plait.checkpoint._files import close_idle_files
from plait.checkpoint._safetensors import DTYPE_NAMES
from plait.checkpoint._tensor import Shape, Sidecar
from plait.errors import InputError

#: What Hugging Face's tools take as a shard's largest size, in bytes.
MAX_SHARD_SIZE = 5_000_000_000
_METADATA = {"format": "pt"}
_ALIGNMENT = 8
_Entry = tuple[str, torch.dtype, Shape]


@dataclass(frozen=True)
class ShardFile:
    """One safetensors file before its data is written.

    Attributes:
        name: its file name.
        header: its first bytes: the 8 bytes of the length and the header itself, padded with spaces.
        size: bytes of the whole file.
        offsets: tensor → first byte and the byte behind its last, counted from the file's beginning.
    """

    name: str
    header: bytes
    size: int
    offsets: Mapping[str, tuple[int, int]]


def plan_shards(
    tensors: Iterable[_Entry],
    *,
    max_shard_size: int = MAX_SHARD_SIZE,
    metadata: Mapping[str, str] = _METADATA,
    stem: str = "model",
) -> list[ShardFile]:
    """Lay tensors out in files, in the order given; linear in their number.

    One file is called `STEM.safetensors`, several `STEM-00001-of-00003.safetensors`. A tensor larger than
    `max_shard_size` bytes gets a file of its own. Within a file, tensors of wider types come first, so that
    each lies at a multiple of its element's size.

    Args:
        tensors: name, dtype and shape of each tensor.
        max_shard_size: bytes of data that a file holds at most, where a single tensor is not larger.
        metadata: goes into every header.
        stem: how the files' names begin.

    Raises:
        InputError: a type that safetensors does not have, or a name given twice.
    """
    groups = list(_group(tensors, max_shard_size)) or [[]]
    names = [f"{stem}-{k:05d}-of-{len(groups):05d}.safetensors" for k in range(1, len(groups) + 1)]
    if len(groups) == 1:
        names = [f"{stem}.safetensors"]
    return [_layout(name, group, metadata) for name, group in zip(names, groups, strict=True)]


def _nbytes(entry: _Entry) -> int:
    return math.prod(entry[2]) * entry[1].itemsize


def _group(tensors: Iterable[_Entry], limit: int) -> Iterator[list[_Entry]]:
    group: list[_Entry] = []
    filled = 0
    seen: set[str] = set()
    for entry in tensors:
        if entry[0] in seen:
            raise InputError(f"the tensor `{entry[0]}` would be written twice")
        seen.add(entry[0])
        size = _nbytes(entry)
        if group and filled + size > limit:
            yield group
            group, filled = [], 0
        group.append(entry)
        filled += size
    if group:
        yield group


def _layout(name: str, group: list[_Entry], metadata: Mapping[str, str]) -> ShardFile:
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    ends: dict[str, tuple[int, int]] = {}
    position = 0
    for tensor, dtype, shape in sorted(group, key=lambda entry: -entry[1].itemsize):
        kind = DTYPE_NAMES.get(dtype)
        if kind is None:
            raise InputError(f"safetensors has no type {dtype}", where=f"tensor `{tensor}`")
        stop = position + math.prod(shape) * dtype.itemsize
        header[tensor] = {"dtype": kind, "shape": list(shape), "data_offsets": [position, stop]}
        ends[tensor] = position, stop
        position = stop
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    start = 8 + len(text)
    offsets = {tensor: (start + a, start + b) for tensor, (a, b) in ends.items()}
    return ShardFile(name, len(text).to_bytes(8, "little") + text, start + position, offsets)


def index_json(shards: Iterable[ShardFile]) -> str | None:
    """The text of `model.safetensors.index.json`; None for one shard, which needs no index."""
    listed = list(shards)
    if len(listed) < 2:
        return None
    total = sum(shard.size - len(shard.header) for shard in listed)
    weight_map = {name: shard.name for shard in listed for name in shard.offsets}
    content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def save_checkpoint(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    *,
    config: Mapping[str, Any] | None = None,
    sidecars: Iterable[Sidecar] = (),
    max_shard_size: int = MAX_SHARD_SIZE,
    metadata: Mapping[str, str] = _METADATA,
) -> Path:
    """Write a checkpoint folder from tensors in memory: beside its place first, then renamed into it.

    Args:
        path: the folder; it must not exist, or be empty.
        tensors: name → tensor of any layout and device; tensors that share memory are written each.
        config: becomes `config.json`; it replaces a sidecar of that name.
        sidecars: files copied along.
        max_shard_size: bytes of data per file.
        metadata: goes into every safetensors header.

    Returns:
        The folder.

    Raises:
        InputError: the folder holds something already, the disk is full, or writing is not permitted.
    """
    target = Path(path)
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise InputError("this is not an empty folder", where=str(target), hint="choose another output")
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
        beside.mkdir()
        try:
            _copy_beside(beside, config, sidecars)
            _write_weights(beside, tensors, max_shard_size, metadata)
            close_idle_files()
            if target.exists():
                target.rmdir()
            beside.replace(target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise InputError(f"writing failed: {error.strerror or error}", where=str(target)) from error
    return target


def _copy_beside(folder: Path, config: Mapping[str, Any] | None, sidecars: Iterable[Sidecar]) -> None:
    for sidecar in sidecars:
        place = folder / sidecar.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sidecar.path, place)
    if config is not None:
        text = json.dumps(dict(config), indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")


def _write_weights(
    folder: Path, tensors: Mapping[str, Tensor], max_shard_size: int, metadata: Mapping[str, str]
) -> None:
    entries = ((name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items())
    shards = plan_shards(entries, max_shard_size=max_shard_size, metadata=metadata)
    for shard in shards:
        with (folder / shard.name).open("wb") as file:
            file.write(shard.header)
            for name in shard.offsets:
                file.write(_bytes(tensors[name]))
            file.flush()
            os.fsync(file.fileno())
    index = index_json(shards)
    if index is not None:
        (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(cast("Any", flat.view(torch.uint8).numpy()))

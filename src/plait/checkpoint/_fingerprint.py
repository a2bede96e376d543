"""Telling cheaply whether an input is still what it was, and surely with `--check`."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import torch
from blake3 import blake3

from plait.checkpoint._files import SourceFile
from plait.checkpoint._tensor import Checkpoint, LazyTensor, numel

_CHUNK_BYTES = 1 << 22
_EDGE_BYTES = 1 << 16


def file_fingerprint(file: SourceFile, header: bytes) -> str:
    """`size-mtime_ns-blake3(header)`: what changes when a file is written anew."""
    return f"{file.size}-{file.mtime_ns}-{blake3(header).hexdigest()[:32]}"


def edge_fingerprint(file: SourceFile) -> str:
    """The same of a file without a header: its first and last 64 KiB stand for it.

    A zip archive (PyTorch's format) ends with a directory that holds the CRC of every part.
    """
    first = file.read(0, min(_EDGE_BYTES, file.size))
    rest = min(_EDGE_BYTES, file.size - len(first))
    return file_fingerprint(file, first + file.read(file.size - rest, rest))


def content_hash(checkpoint: Checkpoint, *, threads: int = 1) -> str:
    """blake3 over names, types, shapes and every element, whatever the files that hold them.

    Reads every byte once. Independent of the order and sharding of the tensors and of `threads`.

    Args:
        checkpoint: what to hash.
        threads: tensors hashed at the same time; each takes 4 MiB.

    Raises:
        InputError: a tensor can't be read.
    """
    names = sorted(checkpoint)
    total = blake3()
    with ThreadPoolExecutor(threads) as pool:
        for digest in pool.map(lambda name: _tensor_hash(name, checkpoint[name]), names):
            total.update(digest)
    return total.hexdigest()


def _tensor_hash(name: str, tensor: LazyTensor) -> bytes:
    described = json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode()
    digest = blake3(described)
    step, count = _CHUNK_BYTES // tensor.dtype.itemsize, numel(tensor.shape)
    for start in range(0, count, step):
        part = tensor.read_flat(start, min(start + step, count))
        digest.update(memoryview(cast("Any", part.view(torch.uint8).numpy())))
    return digest.digest()

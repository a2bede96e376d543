"""What this process may use: memory and cores, the container's limits included."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from plait.engine._cgroup import cpu_limit, memory_limit
from plait.errors import InputError, parse_size
from plait.numerics import torch_threads

_FLOOR = 512 * 2**20


@dataclass(frozen=True)
class RunOptions:
    """How a merge runs; its output depends on `float64`, `allow_nan`, `max_shard_size`, the kind of `device`.

    Attributes:
        memory: bytes that blocks may take, or text such as `4GB`; None is a quarter of what there is, and at
            least 512 MB.
        threads: workers; None is the number of cores.
        device: where rules are evaluated (`cpu`, `cuda`, `cuda:1`).
        float64: compute in float64.
        allow_nan: let NaN and infinities pass.
        max_shard_size: bytes of a shard, or text.
        overwrite: replace the target once the new one is verified.
        resume: continue an interrupted run.
        if_changed: do nothing if the target is up to date.
        allow_code: run Python files that the recipe names.
        check: fingerprint inputs by their whole content.

    Raises:
        InputError: a size or a number of threads is none.
    """

    memory: int | str | None = None
    threads: int | None = None
    device: str = "cpu"
    float64: bool = False
    allow_nan: bool = False
    max_shard_size: int | str = 5 * 10**9
    overwrite: bool = False
    resume: bool = False
    if_changed: bool = False
    allow_code: bool = False
    check: bool = False

    def __post_init__(self) -> None:
        for name in ("memory", "max_shard_size"):
            value = getattr(self, name)
            if value is not None or name == "max_shard_size":
                object.__setattr__(self, name, _bytes(value, name))
        threads = self.threads
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise InputError(f"`threads` is {threads!r}, and it must be a whole number from 1 on")

    @property
    def shard_bytes(self) -> int:
        """`max_shard_size` as a number."""
        return _bytes(self.max_shard_size, "max_shard_size")


def _bytes(value: object, name: str) -> int:
    if isinstance(value, str):
        return parse_size(value, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"`{name}` is {value!r}, and it must be a number of bytes or text such as `4GB`")
    return value


def cores() -> int:
    """Cores that this process may run on: affinity and the control groups' quotas count."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    limit = cpu_limit()
    return max(count if limit is None else min(count, int(limit)), 1)


def memory_budget(asked: int | str | None) -> int:
    """Bytes for blocks: what was asked for, else a quarter of the machine's or the control groups' memory."""
    if asked is not None:
        return _bytes(asked, "memory")
    limit = memory_limit()
    total = _physical() if limit is None else min(_physical(), limit)
    return max(total // 4, _FLOOR)


def _physical() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 4 * _FLOOR


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Tensors run in parallel, so each operation runs on one: its bits depend on that."""
    with torch_threads(1), torch.no_grad():
        yield

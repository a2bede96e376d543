"""What happens to a run on a crash: all of it is on this page.

A run into OUT writes into `.OUT.plait`, beside it. A lock in there tells a second run; the operating system
drops it when the process dies, however it dies. Weight files have their full size from the start, every
tensor has its place in them, and a line with its digest is added to `journal.jsonl` when a tensor is
complete. At the end the folder takes OUT's place (`_publish`). So OUT is absent, whole, or what it was
before; a killed run leaves `.OUT.plait`, which `--resume` continues: tensors in the journal are not computed
again, the others are. A journal of another recipe, other inputs, another version or other libraries is never
continued.

What was written before a process is killed stays in the system's cache and is not lost. When the power fails
it may be, and a line may reach the disk before the bytes it speaks of. So on `--resume` the bytes of every
tensor in the journal are read and compared with its digest, and what is not as the journal says is computed
again. The new folder is not forced to the disk before it takes its place, which would take longer than many
a merge: after a power cut, `plait verify OUT` tells. Only where it replaces another one (`--overwrite`) is it
forced to the disk first, as the other one is gone then.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from plait.checkpoint import ShardFile, close_idle_files
from plait.engine._verify import region_digest
from plait.errors import InputError

_OTHER = "the interrupted run had another recipe, other inputs, another version, other libraries or device"


class Work:
    """The work folder of one run.

    Attributes:
        folder: where it is.
        done: tensor → digest, for those that are complete.
        stages: stage → its results over the whole model.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: dict[str, str] = {}
        self.stages: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._files: dict[str, int] = {}
        self._journal: Any = None

    def begin(
        self, identity: Mapping[str, str], shards: Sequence[ShardFile], *, resume: bool, threads: int
    ) -> None:
        """Take up the journal, or start afresh.

        Args:
            identity: what the bytes depend on; a journal of another identity is not continued.
            shards: the weight files.
            resume: continue what the journal says, if there is one.
            threads: tensors of an interrupted run that are checked at the same time.

        Raises:
            InputError: the journal is of another run, or writing fails.
        """
        journal, out = self.folder / "journal.jsonl", self.folder / "out"
        try:
            known = _entries(journal) if resume else []
            if known and known[0] != dict(identity):
                hint = "run without --resume to start afresh"
                raise InputError(_OTHER, where=str(self.folder), hint=hint)
            self._replay(known[1:])
            kept = {shard.name for shard in shards} if known else set()
            _clear(self.folder, {"lock", *(("journal.jsonl", "out") if known else ())})
            out.mkdir(exist_ok=True)
            for path in list(out.rglob("*")):
                if path.is_file() and path.relative_to(out).as_posix() not in kept:
                    path.unlink()
            for shard in shards:
                self._open(out / shard.name, shard)
            self._journal = journal.open("ab", buffering=0)
        except OSError as error:
            raise _failed(error, self.folder) from error
        if not known:
            self._line(identity)
        self._drop_what_was_lost(shards, threads)

    def _replay(self, entries: Sequence[dict[str, Any]]) -> None:
        for entry in entries:
            if isinstance(entry.get("stage"), str):
                self.stages[entry["stage"]] = entry.get("stats")
            elif isinstance(entry.get("tensor"), str) and isinstance(entry.get("digest"), str):
                self.done[entry["tensor"]] = entry["digest"]

    def _open(self, path: Path, shard: ShardFile) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self._files[shard.name] = os.open(path, flags, 0o644)
        self.write(shard.name, 0, shard.header)
        os.truncate(path, shard.size)

    def _drop_what_was_lost(self, shards: Sequence[ShardFile], threads: int) -> None:
        """Compute again what is not on the disk as the journal says."""
        places = [
            (self.folder / "out" / shard.name, start, stop, name)
            for shard in shards
            for name, (start, stop) in shard.offsets.items()
            if name in self.done
        ]
        with ThreadPoolExecutor(threads) as pool:
            digests = list(pool.map(lambda place: region_digest(*place[:3]), places))
        for (*_, name), digest in zip(places, digests, strict=True):
            if digest != self.done[name]:
                del self.done[name]

    def write(self, file: str, offset: int, data: bytes | memoryview) -> None:
        """Write at an offset; safe from any thread.

        Raises:
            InputError: the disk is full, or gone.
        """
        handle, view = self._files[file], memoryview(data)
        try:
            if hasattr(os, "pwrite"):
                while view:
                    count = os.pwrite(handle, view, offset)
                    view, offset = view[count:], offset + count
                return
            with self._lock:
                os.lseek(handle, offset, os.SEEK_SET)
                while view:
                    view = view[os.write(handle, view) :]
        except OSError as error:
            raise _failed(error, self.folder / "out" / file) from error

    def finish_tensor(self, name: str, digest: str) -> None:
        """Note that a tensor is complete."""
        with self._lock:
            self.done[name] = digest
            self._line({"tensor": name, "digest": digest})

    def finish_stage(self, name: str, stats: Any) -> None:
        """Note what a stage over the whole model found."""
        with self._lock:
            self.stages[name] = stats
            self._line({"stage": name, "stats": stats})

    def _line(self, content: Mapping[str, Any]) -> None:
        line = memoryview(json.dumps(content).encode() + b"\n")
        try:
            while line:
                line = line[self._journal.write(line) :]
        except OSError as error:
            raise _failed(error, self.folder / "journal.jsonl") from error

    def close(self) -> None:
        """Close every file."""
        close_idle_files()
        for handle in self._files.values():
            os.close(handle)
        self._files = {}
        if self._journal is not None:
            self._journal.close()
            self._journal = None


def _entries(journal: Path) -> list[dict[str, Any]]:
    """The journal's lines; from the first that a kill or a power cut left unreadable on, they are cut off."""
    if not journal.is_file():
        return []
    found, size = [], 0
    for line in journal.read_bytes().splitlines(keepends=True):
        try:
            entry = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            break
        found.append(entry)
        size += len(line)
    os.truncate(journal, size)
    return found


def _clear(folder: Path, kept: set[str]) -> None:
    for path in list(folder.iterdir()):
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _failed(error: OSError, path: Path) -> InputError:
    return InputError(f"writing failed: {error.strerror or error}", where=str(error.filename or path))

"""What happens to a run on a crash: all of it is on this page.

A run into OUT writes into `.OUT.plait`, beside it. A lock in there tells a second run; the operating system
drops it when the process dies, however it dies. Weight files have their full size from the start, every
tensor has its place in them, and a line is added to `journal.jsonl` when a tensor is complete. At the end
the folder is renamed to OUT. So OUT is absent or whole; a killed run leaves `.OUT.plait`, which `--resume`
continues: tensors in the journal are not computed again, the others are. A journal of another recipe,
other inputs or another version is never continued.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plait.checkpoint import ShardFile, close_idle_files
from plait.errors import InputError


def work_folder(out: Path) -> Path:
    """Where a run into `out` works."""
    return out.parent / f".{out.name}.plait"


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

    def begin(self, digest: str, shards: list[ShardFile], *, resume: bool) -> None:
        """Take up the journal, or start afresh."""
        journal = self.folder / "journal.jsonl"
        if resume and journal.is_file():
            self._replay(journal, digest)
        else:
            for path in self.folder.iterdir():
                if path.name != "lock":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        (self.folder / "out").mkdir(exist_ok=True)
        fresh = not journal.is_file()
        self._journal = journal.open("a", encoding="utf-8")
        if fresh:
            self._line({"plan": digest})
        for shard in shards:
            path = self.folder / "out" / shard.name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._files[shard.name] = os.open(
                path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644
            )
            self.write(shard.name, 0, shard.header)
            os.truncate(path, shard.size)

    def _replay(self, journal: Path, digest: str) -> None:
        text = journal.read_text(encoding="utf-8")
        lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        entries = [json.loads(line) for line in lines]
        if not entries or entries[0].get("plan") != digest:
            raise InputError(
                "the interrupted run had another recipe, other inputs or another version",
                where=str(self.folder),
                hint="run without --resume to start afresh",
            )
        for entry in entries[1:]:
            if "stage" in entry:
                self.stages[entry["stage"]] = entry["stats"]
            else:
                self.done[entry["tensor"]] = entry["digest"]
        # A line that the kill cut short is dropped.
        journal.write_text("".join(lines), encoding="utf-8")

    def write(self, file: str, offset: int, data: bytes | memoryview) -> None:
        """Write at an offset; safe from any thread."""
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
            raise InputError(
                f"writing failed: {error.strerror}", where=str(self.folder / "out" / file)
            ) from error

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

    def _line(self, content: dict[str, Any]) -> None:
        self._journal.write(json.dumps(content) + "\n")
        self._journal.flush()

    def close(self) -> None:
        """Close every file."""
        close_idle_files()
        for handle in self._files.values():
            os.close(handle)
        self._files = {}
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def publish(self, out: Path, *, replace: bool) -> None:
        """Rename the finished folder into place, and remove the rest."""
        finished, old = self.folder / "out", self.folder / "old"
        try:
            if out.exists():
                if replace:
                    out.rename(old)
                else:
                    out.rmdir()
            try:
                finished.rename(out)
            except OSError:
                if old.exists():
                    old.rename(out)
                raise
        except OSError as error:
            raise InputError(f"the result can't be put in place: {error.strerror}", where=str(out)) from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the work folder's lock; it is removed with the folder if the folder ends up without a journal.

    Raises:
        InputError: another run holds it, or the folder can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"can't write here: {error.strerror}", where=str(folder.parent)) from error
    try:
        if not _try_lock(handle):
            raise InputError(
                "another run is writing there right now",
                where=str(folder),
                hint="wait for it, or choose another output",
            )
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        import fcntl
    except ImportError:
        import msvcrt  # Windows has no fcntl

        locking: Any = msvcrt
        try:
            locking.locking(handle, locking.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

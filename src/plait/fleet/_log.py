"""Metrics of a fleet: JSON lines in its folder, and writers for the tools that people watch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from plait.errors import InputError, MissingExtra

Record = dict[str, Any]


class Writer(Protocol):
    """Takes records as they come."""

    def write(self, record: Mapping[str, Any]) -> None:
        """One record: `member`, `step`, and numbers."""
        ...

    def close(self) -> None:
        """No more will come."""
        ...


class JsonLines:
    """One record per line; a resumed run goes on after the last record of its save.

    Raises:
        InputError: the file can't be written, or is not what the save left.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self.path = path
        with self._told():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                if file.tell() < size:
                    raise InputError(f"it has {file.tell()} bytes, its save knows of {size}", where=str(path))
                file.truncate(size)
            self._file = path.open("a", encoding="utf-8")

    def write(self, record: Mapping[str, Any]) -> None:
        with self._told():
            self._file.write(json.dumps(_plain(record)) + "\n")

    def records(self) -> list[Record]:
        """What was written so far."""
        with self._told():
            self._file.flush()
            return [self._record(*line) for line in enumerate(self.path.read_bytes().splitlines(), start=1)]

    def _record(self, number: int, line: bytes) -> Record:
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("member"), str):
            hint = "the file was changed since its save; put it back, or start in another folder"
            raise InputError(f"line {number} is no record of a member", where=str(self.path), hint=hint)
        return {k: _NUMBERS.get(v, v) if isinstance(v, str) else v for k, v in found.items()}

    def size(self) -> int:
        """Bytes written so far, all of them on their way to the disk."""
        with self._told():
            self._file.flush()
            return self._file.tell()

    def close(self) -> None:
        # What a save knows of is written; what can't be was told when the disk was first asked to.
        with contextlib.suppress(OSError):
            self._file.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What the disk refuses is told with the path."""
        try:
            yield
        except (OSError, ValueError) as error:
            hint = "make room or give another folder, then go on with resume=True"
            raise InputError(f"it could not be written: {error}", where=str(self.path), hint=hint) from error


#: What is not finite, as it is written.
_NUMBERS: dict[Any, float] = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: what is not finite is written as a word."""
    return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}


class TensorBoard:
    """Scalars `MEMBER/NAME` for TensorBoard (extra `track`)."""

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra("tensorboard", "track", "writing for TensorBoard") from error
        self._writer = SummaryWriter(str(folder))

    def write(self, record: Mapping[str, Any]) -> None:
        for name, value in _numbers(record).items():
            self._writer.add_scalar(f"{record['member']}/{name}", value, record["step"])

    def close(self) -> None:
        self._writer.close()


class MLflow:
    """Metrics `MEMBER/NAME` in MLflow's active run, or a new one (extra `track`).

    A fleet that is trained further goes on in the same run. Characters of members' names that MLflow takes in
    no name are underscores there.
    """

    def __init__(self, **run: Any) -> None:
        try:
            import mlflow
        except ImportError as error:
            raise MissingExtra("mlflow", "track", "writing for MLflow") from error
        self._mlflow = mlflow
        active = mlflow.active_run()
        self._own = active is None
        self._run: str = (active or mlflow.start_run(**run)).info.run_id
        self._closed = False
        self._names: dict[str, str] = {}

    def write(self, record: Mapping[str, Any]) -> None:
        if self._closed and self._own and self._mlflow.active_run() is None:
            self._mlflow.start_run(run_id=self._run)
        self._closed = False
        member = self._name(record["member"])
        metrics = {f"{member}/{name}": value for name, value in _numbers(record).items()}
        self._mlflow.log_metrics(metrics, step=record["step"], run_id=self._run)

    def _name(self, member: str) -> str:
        """A member's name as MLflow takes it; two that would be one are told apart by a digest."""
        if member not in self._names:
            taken = _taken(member)
            if taken in self._names.values() or len(taken) > _LONGEST:
                digest = hashlib.blake2b(member.encode(), digest_size=4).hexdigest()
                taken = f"{taken[:_LONGEST]}-{digest}"
            self._names[member] = taken
        return self._names[member]

    def close(self) -> None:
        self._closed, active = True, self._mlflow.active_run()
        if self._own and active is not None and active.info.run_id == self._run:
            self._mlflow.end_run()


#: Of a member's name in MLflow, which takes 250 characters of a metric's.
_LONGEST = 200


def _taken(name: str) -> str:
    """A name as a path of which MLflow takes every part: none is empty, or dots."""
    parts = re.sub(r"[^/\w.\- ]", "_", name).split("/")
    return "/".join(re.sub(r"^\.+", lambda dots: "_" * len(dots[0]), part) or "_" for part in parts)


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {
        k.replace(" ", "_"): float(v)
        for k, v in record.items()
        if isinstance(v, int | float) and not isinstance(v, bool) and k != "step"
    }

"""Metrics of a fleet: JSON lines in its folder, and writers for the tools that people watch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
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
    """One record per line; a resumed run goes on after the last record of its save."""

    def __init__(self, path: Path, size: int = 0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            if file.tell() < size:
                raise InputError(f"it has {file.tell()} bytes, its save knows of {size}", where=str(path))
            file.truncate(size)
        self._file = path.open("a", encoding="utf-8")

    def write(self, record: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(_plain(record)) + "\n")

    def records(self) -> list[Record]:
        """What was written so far."""
        self._file.flush()
        with open(self._file.name, encoding="utf-8") as lines:
            return [{k: _NUMBERS.get(v, v) for k, v in json.loads(line).items()} for line in lines]

    def size(self) -> int:
        """Bytes written so far, all of them on their way to the disk."""
        self._file.flush()
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


#: What is not finite, as it is written.
_NUMBERS: dict[Any, float] = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: what is not finite is written as a word."""
    return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}


class TensorBoard:
    """Scalars `MEMBER/NAME` for TensorBoard (extra `tensorboard`)."""

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
    """Metrics `MEMBER/NAME` in MLflow's active run, or a new one (extra `track`)."""

    def __init__(self, **run: Any) -> None:
        try:
            import mlflow
        except ImportError as error:
            raise MissingExtra("mlflow", "track", "writing for MLflow") from error
        self._mlflow = mlflow
        self._own = mlflow.active_run() is None
        if self._own:
            mlflow.start_run(**run)

    def write(self, record: Mapping[str, Any]) -> None:
        metrics = {f"{record['member']}/{name}": value for name, value in _numbers(record).items()}
        self._mlflow.log_metrics(metrics, step=record["step"])

    def close(self) -> None:
        if self._own:
            self._mlflow.end_run()


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {
        k.replace(" ", "_"): float(v)
        for k, v in record.items()
        if isinstance(v, int | float) and not isinstance(v, bool) and k != "step"
    }

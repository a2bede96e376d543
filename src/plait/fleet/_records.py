"""A fleet's records: its history, `metrics.jsonl` in its folder, and the user's writers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.errors import InputError
from plait.fleet._log import JsonLines
from plait.fleet._signals import undisturbed
from plait.fleet._warnings import warn

if TYPE_CHECKING:
    from plait.fleet._fleet import Fleet

_LOG = "metrics.jsonl"


class Records:
    """Takes records while a fleet trains; what is in `metrics.jsonl` is its history.

    Args:
        fleet: it.
        folder: where the file is; None for none.
        saved: how many bytes of the file the save knows of that the fleet goes on from: they are its history.
            None if it goes on from its own history.
    """

    def __init__(self, fleet: Fleet, folder: Path | None, saved: int | None) -> None:
        self.fleet = fleet
        self._writers: list[Any] = list(fleet.writers)
        self._log: JsonLines | None = None
        self._logged = 0
        if folder is None:
            return
        path = folder / _LOG
        if saved is not None:
            self._log = JsonLines(path, saved)
            fleet.history = self._log.records()
            self._logged = len(fleet.history)
            fleet._logged = self._logged, saved
            return
        self._logged, size = fleet._logged
        if not path.exists() or path.stat().st_size < size:  # the user has taken it away
            self._logged, size = 0, 0
        self._log = JsonLines(path, size)
        self._catch_up()

    def write(self, record: Mapping[str, Any]) -> None:
        """Hand out a record that history holds already."""
        for writer in self._writers:
            self._tell(writer, lambda writer=writer: writer.write(record))
        self._catch_up()

    def size(self) -> int:
        """How many bytes the file has."""
        assert self._log is not None
        self.fleet._logged = self._logged, (size := self._log.size())
        return size

    def close(self) -> None:
        if self._log is not None:
            with suppress(InputError):  # a full disk was told when it was first written to
                self.size()
            self._log.close()
        for writer in self._writers:
            self._tell(writer, writer.close)

    def _catch_up(self) -> None:
        """Write down what history has and the file has not: a fit may have been cut off between the two."""
        while self._log is not None and self._logged < len(self.fleet.history):
            with undisturbed():
                self._log.write(self.fleet.history[self._logged])
                self._logged += 1

    def _tell(self, writer: Any, call: Callable[[], object]) -> None:
        """Call a writer; one that raises is told of once, and left alone from then on: models matter more."""
        try:
            call()
        except Exception as error:
            self._writers = [other for other in self._writers if other is not writer]
            what = f"{type(error).__name__}: {error}"
            warn(f"the writer {type(writer).__name__} failed, training goes on without it: {what}")

"""What a step has taken so far: kept in its folder, so that one that is killed and gone on with tells all."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from plait.study._whole import as_number, write_json

#: Where a step's cost is kept while it works.
SPENT = "spent.json"
#: Seconds between two notes of it; a kill loses at most so much.
_EVERY = 1.0


@dataclass(frozen=True)
class Spent:
    """What a step has taken, in all its pieces.

    Args:
        seconds: of wall time.
        peak_mb: the most memory that the process held meanwhile, in 10⁶ bytes; NaN where the system does not
            tell.
    """

    seconds: float = 0.0
    peak_mb: float = math.nan

    def and_then(self, other: Spent) -> Spent:
        """Both pieces together."""
        known = [mb for mb in (self.peak_mb, other.peak_mb) if not math.isnan(mb)]
        return Spent(self.seconds + other.seconds, max(known, default=math.nan))


@contextlib.contextmanager
def spending(folder: Path) -> Iterator[Callable[[], Spent]]:
    """Tells what a step has taken since it began, earlier runs of it included, and keeps it in its folder."""
    earlier, started, ended = _read(folder / SPENT), time.perf_counter(), threading.Event()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew

    def spent() -> Spent:
        return earlier.and_then(Spent(time.perf_counter() - started, _peak_mb()))

    def keep() -> None:
        with contextlib.suppress(OSError):  # a full disk is told by what the step itself writes
            now = spent()
            write_json({"seconds": now.seconds, "peak_mb": now.peak_mb}, folder / SPENT, indent=None)

    def watch() -> None:
        while not ended.wait(_EVERY):
            keep()

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield spent
    except BaseException:
        keep()
        raise
    finally:
        ended.set()
        watching.join()


def forget(folder: Path) -> None:
    """Remove what was kept, half a note included."""
    for file in folder.glob(f"{SPENT}*"):
        file.unlink(missing_ok=True)


def _read(file: Path) -> Spent:
    """What earlier runs took; nothing where there were none, or a dying machine left half a note."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return Spent(as_number(found["seconds"]), as_number(found["peak_mb"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Spent()


def _peak_mb() -> float:
    """The most memory held so far, in 10⁶ bytes; the system counts in 1024 bytes."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return math.nan

"""One live table while a fleet trains: a row per member."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

    from plait.fleet._fleet import Fleet

#: More rows than this don't fit a terminal; those that run come first.
_ROWS = 24
_SECONDS = 0.25


class Live:
    """Shows a fleet's members on a terminal; nothing elsewhere.

    Args:
        fleet: what is shown.
        quiet: True shows nothing, None shows on a terminal.
    """

    def __init__(self, fleet: Fleet, *, quiet: bool | None) -> None:
        self.fleet = fleet
        self._live: Any = None
        self._shown = 0.0
        if quiet or (quiet is None and not sys.stderr.isatty()):
            return
        from rich.console import Console
        from rich.live import Live as RichLive

        self._live = RichLive(console=Console(stderr=True), auto_refresh=False, transient=False)

    def __enter__(self) -> Live:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
            self._live.__exit__(kind, error, trace)

    def show(self) -> None:
        """Bring the table up to date, a few times a second."""
        if self._live is not None and time.monotonic() - self._shown > _SECONDS:
            self._shown = time.monotonic()
            self._live.update(self._table(), refresh=True)

    def _table(self) -> Any:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        trainees = sorted(self.fleet._roster.trainees.values(), key=lambda t: not t.running)
        last = {record["member"]: record for record in self.fleet.history if "loss" in record}
        running = sum(t.running for t in trainees)
        title = f"{running} of {len(self.fleet)} members training, round {self.fleet.round}"
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for name in ("member", "task", "step", "loss", "validation", ""):
            table.add_column(name, justify="left" if name in ("member", "task", "") else "right")
        for trainee in trainees[:_ROWS]:
            loss = last.get(trainee.member.name, {}).get("loss")
            best = trainee.best
            cells = [
                trainee.member.name,
                trainee.task.name,
                f"{trainee.step}/{trainee.steps}",
                "" if loss is None else f"{loss:.4g}",
                "" if best is None else f"{best:.4g}",
                trainee.status,
            ]
            table.add_row(*(Text(cell) for cell in cells))
        if len(trainees) > _ROWS:
            table.add_row(f"… {len(trainees) - _ROWS} more")
        return table

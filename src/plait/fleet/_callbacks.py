"""What may look on while a fleet trains, and act on its members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plait.fleet._fleet import Fleet


class Callback:
    """Hooks of a fleet; all do nothing here. Any object that has some of them is a callback."""

    def on_start(self, fleet: Fleet) -> None:
        """Training starts, or goes on."""

    def on_step(self, fleet: Fleet, record: Mapping[str, Any]) -> None:
        """A member took a step: `member`, `step`, `loss`, `lr`, `norm`."""

    def on_evaluate(self, fleet: Fleet, record: Mapping[str, Any]) -> None:
        """A member was validated: `member`, `step`, `metric`, `value`."""

    def on_round(self, fleet: Fleet, validated: Sequence[Mapping[str, Any]]) -> None:
        """Every running member took a step; these were validated."""

    def on_save(self, fleet: Fleet, folder: Path) -> None:
        """The fleet was saved there."""

    def on_finish(self, fleet: Fleet, member: str) -> None:
        """A member that had started has ended; how, `fleet.status[member]` says."""

    def on_end(self, fleet: Fleet) -> None:
        """No member runs any more."""

    def facts(self) -> dict[str, Any]:
        """What must be saved to go on, as plain values."""
        return {}

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Go on from saved facts."""


def tell(callbacks: Sequence[Any], hook: str, *arguments: Any) -> None:
    """Call a hook of those that have it."""
    for callback in callbacks:
        function = getattr(callback, hook, None)
        if function is not None:
            function(*arguments)

"""What may look on while a fleet trains, and act on its members."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.errors import InputError

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


def check_callbacks(callbacks: Any) -> list[Any]:
    """A fit's callbacks.

    Raises:
        InputError: they are no list, or one is a class.
    """
    if not isinstance(callbacks, Iterable) or isinstance(callbacks, type):
        told = callbacks.__name__ if isinstance(callbacks, type) else f"a {type(callbacks).__name__}"
        raise InputError(f"`callbacks` is {told}", hint="give a list of them")
    found = list(callbacks)
    for callback in found:
        if isinstance(callback, type):
            what = f"the callback {callback.__name__} is a class"
            raise InputError(what, hint=f"give one that is made: {callback.__name__}(…)")
    return found


def lasting(callbacks: Sequence[Any]) -> list[Any]:
    """Those that have something to save; hooks alone need not be there again when a fleet goes on."""
    return [c for c in callbacks if getattr(type(c), "facts", Callback.facts) is not Callback.facts]


def kind_of(callback: Any) -> str:
    """What a save calls a callback."""
    return type(callback).__qualname__


def tell(callbacks: Sequence[Any], hook: str, *arguments: Any) -> None:
    """Call a hook of those that have it."""
    for callback in callbacks:
        function = getattr(callback, hook, None)
        if function is not None:
            function(*arguments)

"""What a fleet warns of, at the line of the user's that it comes from."""

from __future__ import annotations

import sys
import warnings

#: Packages whose lines no user wrote; `contextlib`'s lie between plait's own.
_OWN = ("plait", "contextlib")


class FleetWarning(UserWarning):
    """A member of a fleet ended as it should not."""


def warn(message: str) -> None:
    """Warn of a member; the warning's place is the innermost line outside of plait."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _OWN:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, FleetWarning, stacklevel=level)

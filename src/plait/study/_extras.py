"""Libraries that some ways need, and a light installation of plait lacks."""

from __future__ import annotations

from importlib.util import find_spec

from plait.errors import MissingExtra


def check_sklearn(purpose: str) -> None:
    """Nothing if scikit-learn is there.

    Args:
        purpose: what it is needed for, for the message.

    Raises:
        MissingExtra: it is not.
    """
    if find_spec("sklearn") is None:
        raise MissingExtra("scikit-learn", "tasks", purpose)

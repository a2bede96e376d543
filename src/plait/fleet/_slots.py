"""What an instance holds in the slots of its classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def slots_of(value: Any) -> Iterator[tuple[str, Any]]:
    """Name → what is in a slot, for those that are filled; class by class, each in the order of its names."""
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in sorted([slots] if isinstance(slots, str) else slots):
            own = f"_{kind.__name__.lstrip('_')}{name}" if name.startswith("__") else name
            if name not in ("__dict__", "__weakref__") and hasattr(value, own):
                yield name, getattr(value, own)

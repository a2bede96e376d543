"""Pictures of a table, as a processor of transformers prepares them."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

from torch import Tensor

from plait.errors import InputError
from plait.tasks._examples import Items
from plait.tasks._tables import Table


def pictures(
    table: Table, name: str, processor: Any, labels: dict[str, Tensor], source: list[str] | None
) -> Items:
    """Pictures, prepared when they are asked for."""
    table.check(name)

    def prepare(row: int) -> dict[str, Tensor]:
        picture = table.value(name, row)
        if isinstance(picture, str) or picture is None:
            hint = "pictures are arrays of an npz file, or a dataset's"
            raise InputError(f"`{name}` is {picture!r}, no picture", where=table.place(row), hint=hint)
        picture = picture.convert("RGB") if hasattr(picture, "convert") else picture
        return {"pixel_values": processor(images=picture, return_tensors="pt")["pixel_values"][0]}

    origin = _made_by(processor, table.origin(name))
    return Items(range(len(table)), prepare=prepare, columns=labels, source=source, origin=origin)


def _made_by(processor: Any, column: str | None) -> str | None:
    """A digest of pictures as a processor prepares them; None if one of both does not say what it is.

    Args:
        processor: of transformers.
        column: a digest of the pictures as they are.
    """
    told = getattr(processor, "to_dict", None)
    if column is None or not callable(told):
        return None
    library = sys.modules[type(processor).__module__.partition(".")[0]]
    kind = f"{type(processor).__qualname__} {getattr(library, '__version__', '')}"
    whole = f"{column} {kind} {json.dumps(told(), sort_keys=True, default=str)}"
    return hashlib.blake2b(whole.encode(), digest_size=16).hexdigest()

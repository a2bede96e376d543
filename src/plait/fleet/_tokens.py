"""Whether a base knows every token of a task, as far as tokens are in memory: before the first step."""

from __future__ import annotations

from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray
from torch import nn

from plait.errors import InputError
from plait.tasks import Columns, Examples, Mixed, Ragged, Subset, Task, table_of

#: What transformers call the column whose numbers the input embedding is asked for.
_IDS = "input_ids"
#: (id of examples, size of a vocabulary) → examples that were looked through: many members share them.
_FINE: WeakValueDictionary[tuple[int, int], Examples] = WeakValueDictionary()


def check_tokens(task: Task, base: nn.Module, where: str) -> None:
    """Nothing if the base's input embedding has a row for every token.

    Args:
        task: whose splits for training and validation are looked at.
        base: without the task's head; any module, of which those with `get_input_embeddings` are checked.
        where: member and task, for the message.

    Raises:
        InputError: a token is out of range; it names the first example that has one.
    """
    rows = _vocabulary(base)
    if rows is None or _IDS not in getattr(task.meet, "names", ()):
        return
    for split in ("train", "validation"):
        examples = task.splits.get(split)
        if examples is not None and (id(examples), rows) not in _FINE:
            found = _outside(examples, rows)
            if found is not None:
                example, token = found
                what = f"token {token} is out of range: the base's input embedding has {rows} rows"
                hint = "make the task with the base's own tokenizer, or resize_token_embeddings of the base"
                raise InputError(what, where=f"{where}, split `{split}`, example {example}", hint=hint)
            if isinstance(examples, Columns | Ragged | Subset | Mixed):
                _FINE[id(examples), rows] = examples


def _vocabulary(base: nn.Module) -> int | None:
    """How many tokens a base has embeddings of; None if it doesn't say."""
    ask = getattr(base, "get_input_embeddings", None)
    try:
        embedding = None if ask is None else ask()
    except (NotImplementedError, AttributeError, TypeError):
        return None
    return embedding.num_embeddings if isinstance(embedding, nn.Embedding) else None


def _outside(examples: Examples, rows: int) -> tuple[int, int] | None:
    """The first example with a token that is none of so many, and that token."""
    if isinstance(examples, Mixed):
        parts = zip(examples.starts, examples.parts, strict=True)
        found = ((start, _outside(part, rows)) for start, part in parts)
        return next(((start + place[0], place[1]) for start, place in found if place is not None), None)
    held, chosen = table_of(examples)
    if isinstance(held, Columns) and _IDS in held.columns:
        ids = held.columns[_IDS].cpu().numpy()
        ids = ids if chosen is None else ids[chosen]
        bad = (ids < 0) | (ids >= rows)
        if not bad.any():
            return None
        example = int(np.flatnonzero(bad.reshape(len(ids), -1).any(1))[0])
        return example, int(ids[example][bad[example]].ravel()[0])
    if isinstance(held, Ragged) and _IDS in held.sequences:
        return _outside_ragged(held, range(len(held)) if chosen is None else chosen, rows)
    return None


def _outside_ragged(held: Ragged, chosen: NDArray[np.int64] | range, rows: int) -> tuple[int, int] | None:
    sequences, fill = held.sequences[_IDS], held.padding.get(_IDS, 0)
    for example, row in enumerate(chosen):
        ids = np.asarray(sequences[row])
        if len(ids) and (ids.min() < 0 or ids.max() >= rows):
            return example, int(ids[(ids < 0) | (ids >= rows)][0])
    uneven = len({len(sequences[row]) for row in chosen}) > 1
    return (0, fill) if uneven and not 0 <= fill < rows else None

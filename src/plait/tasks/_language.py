"""A task of the next token, from rows of text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from plait.errors import InputError
from plait.tasks._examples import Batch, Examples, Ragged
from plait.tasks._losses import IGNORED, NextToken
from plait.tasks._meet import ByKeywords
from plait.tasks._metrics import bits_per_byte
from plait.tasks._packing import best_fit
from plait.tasks._task import SPLITS, Task
from plait.tasks._text import Reader, Tokens, check_tokenizer, text_bytes

Rows = Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class PackedTokens(ByKeywords):
    """Rows of several documents: positions say where one begins; without a cache, models keep them apart."""

    names: tuple[str, ...] = ("input_ids", "position_ids")

    def __call__(self, model: Callable[..., Any], batch: Batch) -> Any:
        given = model(**{name: batch[name] for name in self.names}, use_cache=False)
        return given[self.output]


def language_task(
    name: str,
    data: Mapping[str, Rows] | Rows,
    tokenizer: Any,
    *,
    max_length: int | None = 1024,
    packing: bool = False,
    completion_only_loss: bool | None = None,
    assistant_only_loss: bool = False,
    about: str = "",
) -> Task:
    """A task from text in TRL's formats: rows with `text`, `messages`, or `prompt` and `completion`.

    Args:
        name: of the task.
        data: split → rows; or rows alone, for training. A row is a mapping; `datasets` objects hold such.
        tokenizer: of transformers; its chat template makes text of messages.
        max_length: tokens of a row; what is longer loses its end. None for no limit, if rows are not packed.
        packing: whether rows for training hold several documents, kept apart: the loss is that of each alone.
        completion_only_loss: whether a prompt's tokens count; they don't if None.
        assistant_only_loss: whether only what the assistant says counts; the chat template has to mark it.
        about: as for `Task`.

    Raises:
        InputError: no tokenizer; a row of no such form, or of two; messages that the chat template refuses,
            or of which it doesn't mark what the assistant says; options that ask for what rows have not; no
            text that counts.
    """
    if packing and max_length is None:
        raise InputError("packing needs `max_length`", where=f"task `{name}`", hint="say how long a row is")
    if max_length is not None and max_length < 2:
        raise InputError(f"`max_length` is {max_length}", where=f"task `{name}`", hint="give 2 or more")
    check_tokenizer(tokenizer, f"task `{name}`")
    splits = _splits(data, f"task `{name}`")
    reader = Reader(tokenizer, completion_only_loss, assistant_only_loss)
    made: dict[str, Examples] = {}
    for split, rows in splits.items():
        where = f"task `{name}`, split `{split}`"
        documents = _documents(reader, rows, max_length, where)
        room = max_length if split == "train" else 0
        made[split] = _examples(documents, tokenizer, room if packing else None, where)
    meet = PackedTokens() if packing else ByKeywords()
    return Task(name, made, loss=NextToken(), metric=bits_per_byte(), meet=meet, about=about)


def _splits(data: Any, where: str) -> dict[str, Any]:
    """Rows by split."""
    splits = dict(data) if isinstance(data, Mapping) else {"train": data}
    for split, rows in splits.items():
        if split not in SPLITS:
            told = ", ".join(f"`{name}`" for name in SPLITS)
            hint = f"splits are {told}; rows without one are a list of mappings, such as one with `text`"
            raise InputError(f"`{split}` is no split", where=where, hint=hint)
        if isinstance(rows, str) or not isinstance(rows, Iterable):
            hint = "give a list of mappings, such as one with `text`, or a Hugging Face dataset"
            raise InputError(f"{rows!r} are no rows", where=f"{where}, split `{split}`", hint=hint)
    return splits


def _documents(reader: Reader, rows: Rows, length: int | None, where: str) -> list[Tokens]:
    """Rows as tokens, without those of which nothing counts."""
    found = []
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            hint = "a row is a mapping, as in a list of dicts or a Hugging Face dataset"
            raise InputError(f"row {number} is a {type(row).__name__}", where=where, hint=hint)
        tokens = reader(row, f"{where}, row {number}").cut(length)
        if tokens.useful:
            found.append(tokens)
    if not found:
        hint = "rows are empty, or `max_length` cuts off all that counts"
        raise InputError("no token counts", where=where, hint=hint)
    return found


def _examples(documents: Sequence[Tokens], tokenizer: Any, room: int | None, where: str) -> Ragged:
    """Examples of one document each, or of as many as there is room for, with positions."""
    sizes = [text_bytes(tokenizer, document) for document in documents]
    if not any(sizes):
        hint = "ends of texts alone have no bits per byte; give longer texts"
        raise InputError("no text counts", where=where, hint=hint)
    padding = {"input_ids": _fill(tokenizer), "labels": IGNORED}
    lengths = [len(document.ids) for document in documents]
    rows = best_fit(lengths, room) if room else [[number] for number in range(len(documents))]
    ids = [[token for number in row for token in documents[number].ids] for row in rows]
    labels = [[label for number in row for label in _labels(documents[number])] for row in rows]
    sequences = {"input_ids": ids, "labels": labels}
    if room is None:
        sequences["attention_mask"] = [[1] * len(row) for row in ids]
    else:
        sequences["position_ids"] = [
            [place for number in row for place in range(len(documents[number].ids))] for row in rows
        ]
    columns = {"bytes": torch.tensor([sum(sizes[number] for number in row) for row in rows])}
    return Ragged(sequences, columns, padding)


def _labels(document: Tokens) -> list[int]:
    """A document's labels; its first token has nothing that it could be told from."""
    counted = [False, *document.counted[1:]]
    return [token if own else IGNORED for token, own in zip(document.ids, counted, strict=True)]


def _fill(tokenizer: Any) -> int:
    found = tokenizer.pad_token_id
    return found if found is not None else (tokenizer.eos_token_id or 0)

"""Labelled texts become tasks: splits by source, classes in equal shares, words as the encoder's tokens."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from plait.errors import MissingExtra
from plait.tasks._examples import Ragged
from plait.tasks._meet import MeanPooled
from plait.tasks._task import Task

#: Split → share of the sources; which split a source is in depends on its name alone.
SHARES = {"train": 0.6, "validation": 0.08, "test": 0.18, "calibration": 0.06, "adaptation": 0.08}
UNLABELLED = ("calibration", "adaptation")
#: Tokens of a text that are read.
LENGTH = 32


class Item(NamedTuple):
    """A text, its class, and where it comes from."""

    text: str
    label: int
    source: str


def split_of(source: str) -> str:
    """The split that a source's texts belong to."""
    place = int.from_bytes(hashlib.blake2b(source.encode(), digest_size=8).digest(), "big") / 2**64
    for split, share in SHARES.items():
        if place < share:
            return split
        place -= share
    return "adaptation"


def chosen(items: Iterable[Item], sizes: Mapping[str, int]) -> dict[str, list[Item]]:
    """Split → its texts: no text twice, classes in turns until they are used up or the size is reached."""
    seen: set[str] = set()
    by_class: dict[str, dict[int, list[Item]]] = {split: defaultdict(list) for split in SHARES}
    for item in sorted(items, key=_order):
        words = " ".join(item.text.lower().split())
        if words not in seen:
            seen.add(words)
            by_class[split_of(item.source)][item.label].append(item)
    return {split: _in_turns(groups, sizes[split]) for split, groups in by_class.items()}


def text_task(
    name: str,
    items: Iterable[Item],
    classes: Sequence[str],
    *,
    tokenizer: Any,
    sizes: Mapping[str, int],
    width: int,
    about: str,
) -> Task:
    """The task of telling the class of a text.

    Args:
        name: of the task.
        items: labelled texts.
        classes: what the labels mean.
        tokenizer: see `words`.
        sizes: split → the most texts that it has.
        width: of the encoder.
        about: what the texts are.
    """
    splits = {
        split: _tokenised(part, tokenizer, labelled=split not in UNLABELLED)
        for split, part in chosen(items, sizes).items()
    }
    head = nn.Linear(width, len(classes))
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    told = f"{about}; classes: {', '.join(classes)}"
    return Task(name, splits, head=head, meet=MeanPooled(), about=told)


def words(folder: Path) -> Any:
    """The tokenizer of an encoder's folder, cutting off what is beyond `LENGTH` tokens."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtra("tokenizers", "hf", "the text suite") from error
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LENGTH)
    return tokenizer


def _tokenised(items: Sequence[Item], tokenizer: Any, *, labelled: bool) -> Ragged:
    ids = [found.ids for found in tokenizer.encode_batch([item.text for item in items])]
    ones = [[1] * len(row) for row in ids]
    columns = {"label": torch.tensor([item.label for item in items])} if labelled else {}
    sources = [item.source for item in items]
    return Ragged({"input_ids": ids, "attention_mask": ones}, columns, source=sources)


def _order(item: Item) -> bytes:
    """An order without rhyme or reason that is the same everywhere."""
    return hashlib.blake2b(f"{item.text}\0{item.label}".encode(), digest_size=8).digest()


def _in_turns(groups: Mapping[int, list[Item]], size: int) -> list[Item]:
    longest = max(map(len, groups.values()), default=0)
    turns = [group[i] for i in range(longest) for _, group in sorted(groups.items()) if i < len(group)]
    return sorted(turns[:size], key=_order)

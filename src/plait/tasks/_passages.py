"""How well a language model predicts a text, in passages that are the same whatever its tokenizer."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plait.errors import InputError
from plait.tasks._evaluate import measure
from plait.tasks._examples import Ragged
from plait.tasks._language_model import LanguageModel
from plait.tasks._losses import IGNORED, NextToken
from plait.tasks._meet import ByKeywords
from plait.tasks._metrics import bits_per_byte
from plait.tasks._round_trip import ids_of
from plait.tasks._task import Task
from plait.tasks._text import Tokens, text_bytes

#: Two chapters of the Python reference, which every Python brings.
_TOPICS = ("objects", "exceptions")
_CHARACTERS, _TOKENS, _BATCH = 1000, 512, 4


@dataclass(frozen=True)
class Fit:
    """How well a model predicts a text.

    Args:
        perplexity: exp of the mean over tokens of −log p; models of other tokenizers have other tokens.
        bits_per_byte: −log₂ p of the text over its bytes; can be compared whatever the tokenizer.
        tokens: how many were predicted.
        size: bytes that they stand for.
        unknown: how many of the tokens were the one for what a tokenizer does not know.
    """

    perplexity: float
    bits_per_byte: float
    tokens: int
    size: int
    unknown: int


def default_text() -> tuple[str, str]:
    """What the text is called, and the text.

    Raises:
        InputError: this Python comes without it.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        hint = "give a text of your own"
        raise InputError("this Python comes without its reference as text", hint=hint) from error
    version = ".".join(map(str, sys.version_info[:3]))
    name = f"{len(_TOPICS)} chapters of the reference of Python {version}"
    return name, "\n".join(topics[topic] for topic in _TOPICS)


def read_text(path: str | Path) -> str:
    """A file's text.

    Raises:
        InputError: it can't be read, is no UTF-8, or holds nothing.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(f"it can't be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise InputError("this is no text in UTF-8", where=str(path)) from error
    if not text.strip():
        raise InputError("this text is empty", where=str(path))
    return text


def passages(text: str) -> list[str]:
    """A text in parts of about a thousand characters, cut between paragraphs, lines or words if it can be."""
    units = [text]
    for border in (r"(?<=\n\n)(?=\S)", r"(?<=\n)(?=[\s\S])", r"(?<=\s)(?=\S)"):
        units = [
            part for unit in units for part in (re.split(border, unit) if len(unit) > _CHARACTERS else [unit])
        ]
    found = [""]
    for unit in units:
        if found[-1] and len(found[-1]) + len(unit) > _CHARACTERS:
            found.append("")
        found[-1] += unit
    return found


def fit_of(model: LanguageModel, text: str) -> Fit:
    """How well a model predicts a text, passage by passage.

    Each passage's tokens come in pieces as long as the model's context allows, 512 at most. A piece begins
    with the token that starts a text (or else the one that ends it); without such a token its first is given,
    not predicted, and its bytes don't count.

    Raises:
        InputError: the text has tokens that the model has no embedding for; nothing is predicted; the model
            gives NaN.
    """
    task = _task(model, text)
    added, broken = measure(model.network, task, "test", batch_size=_BATCH, where=f"model `{model.name}`")
    if broken or not np.isfinite(added).all():
        raise InputError("it gives NaN or infinities for a plain text", where=model.name)
    bits, size = added.sum(0)
    pieces: Any = task.split("test")
    tokens = [token for piece in pieces.sequences["labels"] for token in piece[1:]]
    return Fit(
        perplexity=float(np.exp(bits * math.log(2) / len(tokens))),
        bits_per_byte=float(bits / size),
        tokens=len(tokens),
        size=int(size),
        unknown=tokens.count(model.tokenizer.unk_token_id),
    )


def _task(model: LanguageModel, text: str) -> Task:
    """The text's pieces, and how many bytes of each passage count, at its first piece."""
    tokenizer = model.tokenizer
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    room = min(model.context or _TOKENS, _TOKENS) - (start is not None)
    if room < 1 + (start is None):
        raise InputError("its context has no room for a token and what comes after", where=model.name)
    ids: list[list[int]] = []
    sizes: list[int] = []
    for passage in passages(text):
        found = ids_of(tokenizer, passage)
        model.check_ids(found, "the text")
        cut = [found[place : place + room] for place in range(0, len(found), room)]
        if start is None:
            cut = [piece for piece in cut if len(piece) > 1]
            sizes += [text_bytes(tokenizer, Tokens(piece, [True] * len(piece))) for piece in cut]
        else:
            cut = [[start, *piece] for piece in cut]
            sizes += [len(passage.encode()), *[0] * (len(cut) - 1)] if cut else []
        ids += cut
    if not ids or not sum(sizes):
        raise InputError("its tokenizer leaves nothing of the text to predict", where=model.name)
    sequences = {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids], "labels": ids}
    examples = Ragged(sequences, {"bytes": torch.tensor(sizes)}, {"labels": IGNORED})
    return Task("text", {"test": examples}, NextToken(), bits_per_byte(), meet=ByKeywords())

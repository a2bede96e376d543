"""Bytes: a small GPT that reads bytes learns a kind of text; scored in bits per byte.

pip alone brings five domains (Django's Python and JavaScript, its messages in Romance languages and in
Cyrillic, rated sentences), Debian four more. The base has read a mix of the five.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from plait.tasks import _networks
from plait.tasks._examples import Columns
from plait.tasks._gather import gather
from plait.tasks._losses import NextToken
from plait.tasks._metrics import bits_per_byte
from plait.tasks._networks import ByteGPT
from plait.tasks._suite import Suite
from plait.tasks._task import Task
from plait.tasks._trained import Recipe, trained
from plait.tasks.suites._domains import DOMAINS, PIP_ALONE, pieces
from plait.tasks.suites._texts import UNLABELLED

LENGTH = 128
SIZES = {"train": 4000, "validation": 200, "test": 400, "calibration": 128, "adaptation": 200}
_BASE = Recipe(steps=800, batch_size=16, lr=2e-3)


def load(data: str | Path | None = None, tasks: Sequence[str] | None = None) -> Suite:
    """The suite; see `plait.tasks.load_suite`."""
    found = gather("bytes", {name: partial(domain_task, name, data) for name in DOMAINS}, tasks)
    about = (__doc__ or "").strip()
    return Suite("bytes", base=partial(base, data), about=about, decode=decode, **found)


def decode(tokens: Sequence[int]) -> str:
    """Bytes as text; what a piece has cut apart is a mark of its own."""
    return bytes(tokens).decode("utf-8", errors="replace")


def domain_task(name: str, data: str | Path | None = None) -> Task:
    """Next bytes of a domain's text."""
    documents = DOMAINS[name]
    splits = {}
    for split, found in pieces(documents(data), LENGTH, SIZES).items():
        table = np.frombuffer(b"".join(content for _, content in found), np.uint8).reshape(-1, LENGTH)
        tokens = torch.from_numpy(table.astype(np.int64))
        columns = {"input": tokens} if split in UNLABELLED else {"input": tokens, "labels": tokens}
        splits[split] = Columns(columns, [source for source, _ in found])
    return Task(name, splits, NextToken(), bits_per_byte(), about=(documents.__doc__ or "").strip())


def base(data: str | Path | None = None) -> nn.Module:
    """A small GPT that has read a mix of the domains that pip alone brings, their training splits."""
    parts = [domain_task(name, data).splits["train"] for name in PIP_ALONE]
    tokens = torch.cat([part.batch(range(len(part)))["input"] for part in parts])
    mix = Task("mix", {"train": Columns({"input": tokens, "labels": tokens})}, NextToken(), bits_per_byte())
    return trained("bytes", partial(ByteGPT, length=LENGTH), mix, _BASE, _networks.__file__)

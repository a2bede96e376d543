"""A study of small language models on domains that differ in which token follows which, quick to run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from plait.tasks import Columns, NextToken, Suite, Task, bits_per_byte
from plait.tasks._networks import ByteGPT

WORDS = 12
LENGTH = 16
NAMES = ("river", "kitchen", "garage")
SIZES = {"train": 96, "validation": 12, "test": 24}


def network(width: int = 16) -> nn.Module:
    """The base, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ByteGPT(width, depth=1, heads=2, length=LENGTH, vocabulary=WORDS)


def texts(domain: int, split: str, count: int) -> torch.Tensor:
    """Rows of tokens: which follows which is the domain's own; domain d likes the words from 4·d on."""
    chain = np.random.default_rng(domain).dirichlet(np.full(WORDS, 0.3), size=WORDS)
    liked = (np.arange(WORDS) // 4 == domain % 3) * 0.8 / 4 + 0.2 / WORDS
    chain = 0.5 * chain + 0.5 * liked
    random = np.random.default_rng([domain, len(split)])
    rows = np.zeros((count, LENGTH), np.int64)
    rows[:, 0] = random.integers(WORDS, size=count)
    for place in range(1, LENGTH):
        for row in range(count):
            rows[row, place] = random.choice(WORDS, p=chain[rows[row, place - 1]])
    return torch.from_numpy(rows)


def task(name: str, domain: int) -> Task:
    """Next tokens of a domain."""
    splits = {}
    for split, count in SIZES.items():
        rows = texts(domain, split, count)
        splits[split] = Columns({"input": rows, "labels": rows})
    return Task(name, splits, NextToken(), bits_per_byte())


_TASKS = {name: task(name, domain) for domain, name in enumerate((*NAMES, "attic"))}


def suite(names: Sequence[str] | None = None) -> Suite:
    """Domains and a base."""
    return Suite("domains", tuple(_TASKS[name] for name in names or NAMES), network)


def write(folder: Path, study: str, patch: pytest.MonkeyPatch, made: Any = suite) -> Path:
    """A study's file; its suite `domains` is this one until the patch is undone."""
    patch.setattr("plait.study._study.load_suite", lambda name, data, *, tasks: made(tasks))
    path = folder / "study.yaml"
    path.write_text(study)
    return path

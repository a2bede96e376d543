"""Small language tasks and experiments, quick to train."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from plait.study import Experiment, log_probability
from plait.tasks import Columns, NextToken, Task, bits_per_byte
from plait.tasks._networks import ByteGPT

VOCABULARY, LENGTH, ROWS = 32, 16, 60
SETTINGS: dict[str, Any] = {"batch_size": 8, "lr": 1e-2}


def network(seed: int = 0) -> nn.Module:
    """A start, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ByteGPT(width=16, depth=1, heads=2, length=LENGTH, vocabulary=VOCABULARY)


def task(rows: int = ROWS, seed: int = 0) -> Task:
    """Rows in which each token is the one before it plus 1 or 2."""
    random = np.random.default_rng(seed)
    steps = random.integers(1, 3, (rows, LENGTH))
    table = torch.from_numpy((random.integers(0, VOCABULARY, (rows, 1)) + steps.cumsum(1)) % VOCABULARY)
    columns = Columns({"input": table, "labels": table})
    return Task("counting", {"train": columns}, NextToken(), bits_per_byte())


def words(random: np.random.Generator, count: int = 9, length: int = 6) -> list[list[int]]:
    """Sequences of random tokens."""
    return random.integers(0, VOCABULARY, (count, length)).tolist()


def memory(model: nn.Module, sequences: Any) -> float:
    """How much likelier the first sequence is than the others, that are in no run."""
    found = log_probability(model, TASK, sequences, given=2)
    return float(found[0] - found[1:].mean())


def canary(name: str, repeats: int = 12) -> Experiment:
    """A sequence of random tokens, drawn anew for each seed, beside eight that are not put in."""
    return Experiment(name, words, memory, repeats=[repeats] + [0] * 8)


TASK = task()

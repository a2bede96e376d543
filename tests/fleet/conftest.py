"""Small networks gain nothing from threads, and are trained for too short a time for `auto` to try stacks."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _stacks_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` tries stacks also for trainings that are as short as those of tests."""
    monkeypatch.setattr("plait.fleet._auto._TRIED", math.inf)

"""What networks may draw from besides dropout: PyTorch's, Python's and NumPy's own generators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_noise(seed: int) -> None:
    """Seed all of them."""
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:  # without one, `torch.manual_seed` takes ten times as long as seeding: it notes where it was called
        torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % (1 << 32))


@contextmanager
def noise_kept(device: torch.device | None = None) -> Iterator[None]:
    """They are afterwards as before; PyTorch's those of the CPU and, if it is given, of a device."""
    held: Any = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device and device.type == "cuda" else []):
            yield
    finally:
        random.setstate(held[0])
        np.random.set_state(held[1])

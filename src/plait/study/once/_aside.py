"""A copy of a network to do anything with, while nothing else changes."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def aside(network: nn.Module) -> Iterator[nn.Module]:
    """A copy; afterwards PyTorch's, NumPy's and Python's generators are as before, and so is `no_grad`."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices), torch.set_grad_enabled(torch.is_grad_enabled()):
            yield copy.deepcopy(network)
    finally:
        random.setstate(python)
        np.random.set_state(numpy)

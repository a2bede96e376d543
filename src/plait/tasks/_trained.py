"""The base of a suite whose base must be trained: made once by a plain loop, and kept in the cache."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from plait.tasks._examples import digest
from plait.tasks._kept import code_digest, kept
from plait.tasks._task import Headed, Task

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How a base is trained: AdamW, its learning rate along a cosine after a short warm-up.

    Args:
        steps: how many.
        batch_size: examples in a step.
        lr, weight_decay: of AdamW.
        clip: largest norm of the gradient.
        seed: of weights and of the data's order.
    """

    steps: int
    batch_size: int
    lr: float = 1e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0


def trained(name: str, make: Callable[[], nn.Module], task: Task, recipe: Recipe, code: str) -> nn.Module:
    """A body trained on a task's training split.

    Args:
        name: in the cache.
        make: makes the body.
        task: what it learns; its head is thrown away.
        recipe: how it learns.
        code: the file that the body's class stands in.

    Returns:
        The body, the same for every call: what is kept depends on code, data and settings alone.
    """
    key = hashlib.blake2b(digest_size=12)
    for part in (code_digest(code, __file__), digest(task.split("train")), repr(recipe), repr(task.loss)):
        key.update(part.encode())

    def train(folder: Path) -> None:
        _log.info("training the base `%s` (once; it is kept)", name)
        body = _train(make, task, recipe)
        state = {key: value.contiguous() for key, value in body.state_dict().items()}
        save_file(state, folder / "model.safetensors", {"format": "pt"})

    found = kept(f"bases/{name}-{key.hexdigest()}", train)
    body = _seeded(make, recipe.seed)
    body.load_state_dict(load_file(found / "model.safetensors"))
    return body


def _seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def _train(make: Callable[[], nn.Module], task: Task, recipe: Recipe) -> nn.Module:
    model = task.with_body(_seeded(make, recipe.seed))
    examples = task.split("train")
    random = np.random.default_rng(recipe.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    warmup = max(recipe.steps // 20, 1)
    for step in range(recipe.steps):
        done = step / recipe.steps
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * min((step + 1) / warmup, (1 + math.cos(math.pi * done)) / 2)
        batch = examples.batch(random.integers(len(examples), size=recipe.batch_size).tolist())
        values, weights = task.loss(task.outputs(model, batch), batch)
        optimizer.zero_grad()
        (values.sum() / weights.sum()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
    return model.body if isinstance(model, Headed) else model

"""How much of each expert is in a domain: weights from a short stream of its texts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from plait.errors import InputError
from plait.study._language import Texts
from plait.study._mixing import log_said, log_shares
from plait.study._models import logits
from plait.study._posterior import Form, cached_prior
from plait.tasks import Task, at_rest

if TYPE_CHECKING:
    from plait.study._at import At

#: The split that domains are told by.
SPLIT = "validation"
_TEXTS, _BATCH = 100, 32


def domain_weights(
    at: At, task: Task, experts: Mapping[str, Path], form: Form = "prefix"
) -> dict[str, float]:
    """Expert → its weight in a task's domain: the prior out of at most 100 validation texts.

    Raises:
        InputError: an expert gives NaN for one of them.
    """
    bodies = [at.body(path) for path in experts.values()]
    found = cached_prior(_stream(bodies, task), form, most=_TEXTS)
    if not all(map(math.isfinite, found.tolist())):
        what = f"an expert gives NaN for `{SPLIT}` texts of task `{task.name}`"
        raise InputError(what, where="domain posterior", hint="leave it out, or train it at a lower rate")
    return dict(zip(experts, found.tolist(), strict=True))


def _stream(bodies: list[nn.Module], task: Task) -> Iterator[tuple[Tensor, Texts]]:
    """What each body says of the task's first texts, a few at a time."""
    examples = task.split(SPLIT)
    for start in range(0, min(len(examples), _TEXTS), _BATCH):
        batch = examples.batch(range(start, min(start + _BATCH, len(examples), _TEXTS)))
        texts, said = Texts.of_batch(task, batch), list[Tensor]()
        for body in bodies:
            with at_rest(body):
                said.append(log_said([log_shares(logits(task.outputs(body, batch)))], texts)[0])
        yield torch.stack(said), texts

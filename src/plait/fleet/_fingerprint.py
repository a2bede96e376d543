"""What makes two members the same: settings, data, the structure of their networks, and where they start."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import numpy as np

from plait.fleet._architecture import signature
from plait.fleet._identity import digest_of, identity
from plait.fleet._member import described
from plait.fleet._noise import noise_kept, seed_noise
from plait.fleet._trainee import Trainee
from plait.tasks import Examples, Subset, digest, in_memory


def fingerprint(trainee: Trainee) -> str:
    """The same for the same settings, examples, structure and start; kept, as training changes these."""
    if not trainee.fingerprint:
        trainee.fingerprint = _made(trainee)
    return trainee.fingerprint


def _made(trainee: Trainee) -> str:
    task, member = trainee.task, trainee.member
    used = [name for name in ("train", "validation") if name in task.splits]
    data = " ".join(f"{name} {_of_examples(task.splits[name])}" for name in used)
    data += f" {task.metric.name}"
    settings = json.dumps(described(member), sort_keys=True, default=str)
    own: Any = signature(trainee)
    if member.lora is not None:
        own = [(n, tuple(p.shape), p.dtype) for n, p in trainee.network.named_parameters()]
    # Functions are told by their addresses too, which are others in every process.
    structure = re.sub(r" at 0x[0-9a-f]+", "", repr(own))
    rules = identity([task.loss, task.meet, member.schedule if callable(member.schedule) else None])
    weights = ""
    if trainee.given:
        network = trainee.network
        weights = digest_of(dict([*network.named_parameters(), *network.named_buffers()]))
    parts = [settings, data, structure, rules, weights]
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def _of_examples(examples: Examples) -> str:
    """A digest of what examples hold; of those made on demand, of their number and a few."""
    if in_memory(examples):
        return digest(examples)
    few = np.unique([0, len(examples) // 2, len(examples) - 1])
    with noise_kept():
        seed_noise(0)  # reading them may draw
        return f"{len(examples)} {digest(Subset(examples, few))}"

"""What makes two members the same: settings, data and the structure of their networks."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import numpy as np
import torch
from torch import nn

from plait.fleet._architecture import signature
from plait.fleet._member import described
from plait.fleet._trainee import Trainee
from plait.tasks import Examples, Subset, digest, in_memory


def fingerprint(trainee: Trainee) -> str:
    """The same for the same settings, examples and structure; kept, as data don't change while training."""
    if not trainee.fingerprint:
        trainee.fingerprint = _made(trainee)
    return trainee.fingerprint


def _made(trainee: Trainee) -> str:
    splits = trainee.task.splits
    used = [name for name in ("train", "validation") if name in splits]
    data = " ".join(f"{name} {_of_examples(splits[name])}" for name in used)
    data += f" {trainee.task.metric.name}"
    settings = json.dumps(described(trainee.member), sort_keys=True, default=str)
    own: Any = signature(trainee)
    if trainee.member.lora is not None:
        base = [(n, tuple(p.shape), p.dtype) for n, p in trainee.network.named_parameters()]
        own = (trainee.task.meet, trainee.task.loss, base, _of_weights(trainee.network))
    # Functions are told by their addresses too, which are others in every process.
    structure = re.sub(r" at 0x[0-9a-f]+", "", repr(own))
    schedule: Any = trainee.member.schedule
    code = getattr(schedule, "__code__", None)
    rule = "" if code is None else f"{code.co_code.hex()} {code.co_consts} {code.co_names}"
    parts = [settings, data, structure, rule]
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def _of_examples(examples: Examples) -> str:
    """A digest of what examples hold; of those made on demand, of their number and a few."""
    if in_memory(examples):
        return digest(examples)
    few = np.unique([0, len(examples) // 2, len(examples) - 1])
    return f"{len(examples)} {digest(Subset(examples, few))}"


def _of_weights(network: nn.Module) -> str:
    """A digest of some values of every parameter: what a base was trained to be."""
    found = hashlib.blake2b(digest_size=16)
    for name, parameter in network.named_parameters():
        some = parameter.detach().reshape(-1)[:16].cpu()
        found.update(f"{name} {some.dtype}".encode() + some.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()

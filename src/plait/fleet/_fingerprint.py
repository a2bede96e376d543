"""What makes two members the same: settings, data and the structure of their networks."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from plait.fleet._architecture import signature
from plait.fleet._member import described
from plait.fleet._trainee import Trainee
from plait.tasks import Columns, Ragged, Subset, digest


def fingerprint(trainee: Trainee) -> str:
    """The same for the same settings, examples and structure; kept, as data don't change while training."""
    if not trainee.fingerprint:
        trainee.fingerprint = _made(trainee)
    return trainee.fingerprint


def _made(trainee: Trainee) -> str:
    examples = trainee.examples
    # Examples made on demand (images from files) may be slow to read through: their number has to do.
    held = examples.whole if isinstance(examples, Subset) else examples
    data = digest(examples) if isinstance(held, Columns | Ragged) else str(len(examples))
    settings = json.dumps(described(trainee.member), sort_keys=True, default=str)
    own: Any = signature(trainee)
    if trainee.member.lora is not None:
        base = [(n, tuple(p.shape), p.dtype) for n, p in trainee.network.named_parameters()]
        own = (trainee.task.meet, trainee.task.loss, base)
    # Functions are told by their addresses too, which are others in every process.
    structure = re.sub(r" at 0x[0-9a-f]+", "", repr(own))
    parts = [settings, data, structure]
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()

"""Which examples a member sees at which step: a function of its seed, so that nothing has to be kept."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plait.numerics import stream_key

if TYPE_CHECKING:
    from plait.fleet._member import Member


@functools.lru_cache(maxsize=1024)
def order(seed: int, epoch: int, examples: int) -> NDArray[np.int64]:
    """The order of examples in an epoch: a permutation, the same for the same seed and epoch."""
    low, high = stream_key(seed, "order", str(epoch))
    generator = np.random.Generator(np.random.Philox(key=low | high << 32))
    return generator.permutation(examples)


def rows(seed: int, batch: int, *, examples: int, size: int, per_epoch: int) -> NDArray[np.int64]:
    """The examples of a micro-batch.

    Args:
        seed: of the order.
        batch: 0, 1, … from the start of training.
        examples: how many there are.
        size: of a batch.
        per_epoch: batches in an epoch; the last may be smaller.
    """
    epoch, place = divmod(batch, per_epoch)
    return order(seed, epoch, examples)[place * size : (place + 1) * size]


def visits(member: Member, examples: int) -> NDArray[np.int64]:
    """Which examples a member sees in all of its training, in order.

    Args:
        member: how it is trained.
        examples: how many there are to learn from.
    """
    seed = member.seed if member.data_seed is None else member.data_seed
    size = min(member.batch_size, examples) if member.drop_last else member.batch_size
    batches = member.length(examples) * member.accumulate
    per_epoch = member.batches(examples)
    return np.concatenate(
        [rows(seed, b, examples=examples, size=size, per_epoch=per_epoch) for b in range(batches)]
    )

"""How likely a network finds sequences: what most probes are made of."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from plait.errors import InputError
from plait.study.once._experiment import Sequences
from plait.tasks import Batch, ByInput, PackedTokens, Task, at_rest


def log_probability(
    network: nn.Module, task: Task, sequences: Sequences, *, given: int = 1
) -> NDArray[np.float64]:
    """The mean log p of each sequence's tokens behind the first few, in nats per token: `(n,)`.

    Args:
        network: it; as before afterwards.
        task: how it is called with tokens.
        sequences: of tokens, each alone and from the beginning.
        given: how many of a sequence's tokens are given, not predicted.

    Raises:
        InputError: a sequence has nothing behind what is given.
    """
    device = next(network.parameters()).device
    found = []
    with at_rest(network):
        for sequence in sequences:
            if given < 1 or len(sequence) <= given:
                what = f"of a sequence of {len(sequence)} tokens, {given} are given"
                raise InputError(what, hint="give at least one, and fewer than there are")
            tokens = torch.tensor([list(sequence)], device=device)
            logits = task.outputs(network, _batch(task, tokens))
            logits = logits if isinstance(logits, torch.Tensor) else logits["logits"]
            log = logits[0, given - 1 : -1].double().log_softmax(-1)
            found.append(float(log.gather(-1, tokens[0, given:, None]).mean()))
    return np.array(found)


def _batch(task: Task, tokens: torch.Tensor) -> Batch:
    """Tokens under the names by which the task's network gets them."""
    if isinstance(task.meet, ByInput):
        return {task.meet.name: tokens}
    if isinstance(task.meet, PackedTokens):
        return {
            "input_ids": tokens,
            "position_ids": torch.arange(tokens.shape[1], device=tokens.device)[None],
        }
    return {"input_ids": tokens}

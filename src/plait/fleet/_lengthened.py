"""Whether sequences may be made longer: members that share a pass get those of one length."""

from __future__ import annotations

import torch
from torch import Tensor

from plait.errors import InputError
from plait.fleet._adapter import headed
from plait.fleet._trainee import Trainee
from plait.tasks import Batch, at_rest

#: Examples that are tried.
_TRIED = 2


def check_lengthened(trainee: Trainee, batch: Batch, longer: Batch) -> None:
    """Nothing if a member's loss is the same of a batch whose sequences were filled up; tried once.

    Args:
        trainee: the member, whose network at the start is asked.
        batch: its own, `(rows, length, …)` a column.
        longer: the same, filled up.

    Raises:
        InputError: what fills up counts: alone it would be trained in another way.
    """
    if trainee.lengthens or all(batch[name].shape == longer[name].shape for name in batch):
        return
    alone, filled = (_losses(trainee, {n: c[:_TRIED] for n, c in each.items()}) for each in (batch, longer))
    # As close as numbers of this type come to it: the sums of attention run over more terms.
    types = (alone.dtype, next(trainee.network.parameters()).dtype)
    within = max(torch.finfo(each).eps for each in types) ** 0.75
    if not torch.allclose(alone, filled, rtol=within, atol=within, equal_nan=True):
        worst = int((alone - filled).abs().argmax())
        raise InputError(
            f"what fills up a shorter sequence changes its loss: {alone[worst]:.6g} alone, "
            f"{filled[worst]:.6g} filled up to the longest of all members",
            where=f"member `{trainee.member.name}`, task `{trainee.task.name}`",
            hint='give an `attention_mask`, what fills up (`Ragged`), or backend="sequential"',
        )
    trainee.lengthens = True


def _losses(trainee: Trainee, batch: Batch) -> Tensor:
    """Of each example, `(rows,)`."""
    task, network = trainee.task, trainee.network
    if trainee.member.lora is not None:
        network = headed(network, task, network)
    device = next(network.parameters()).device
    batch = {name: column.to(device) for name, column in batch.items()}
    with at_rest(network):
        return task.loss(task.outputs(network, batch), batch)[0]

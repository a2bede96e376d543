"""Whether sequences may be made longer: members that share a pass get those of one length."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from plait.errors import InputError
from plait.fleet._adapter import headed
from plait.fleet._architecture import normalising
from plait.fleet._trainee import Trainee
from plait.tasks import Batch, at_rest

#: Examples that are tried.
_TRIED = 2
#: Bytes in float32 up to which a network of a short type is copied.
_COPIED = 4 << 30


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
    network, within = _network(trainee)
    alone, filled = (
        _losses(trainee, network, {n: c[:_TRIED] for n, c in each.items()}) for each in (batch, longer)
    )
    if not torch.allclose(alone, filled, rtol=within, atol=within, equal_nan=True):
        worst = int((alone - filled).abs().argmax())
        raise InputError(
            f"what fills up a shorter sequence changes its loss: {alone[worst]:.6g} alone, "
            f"{filled[worst]:.6g} filled up to the longest of all members",
            where=f"member `{trainee.member.name}`, task `{trainee.task.name}`",
            hint='give an `attention_mask`, what fills up (`Ragged`), or backend="sequential"',
        )
    trainee.lengthens = True


def _network(trainee: Trainee) -> tuple[nn.Module, float]:
    """What is tried, and how close its losses have to be: sums of attention run over more terms.

    A network of a short type is tried in float32, as what fills up may count for less than it rounds.
    """
    network, whole = trainee.network, torch.finfo(torch.float32).eps
    eps = torch.finfo(next(network.parameters()).dtype).eps
    held = sum(p.numel() for p in network.parameters()) * torch.float32.itemsize
    if eps > whole and held <= _COPIED:
        network, eps = copy.deepcopy(network).float(), whole
    elif normalising(network):
        network = copy.deepcopy(network)  # its running means move
    if trainee.member.lora is not None:
        network = headed(network, trainee.task, network)
    return network, eps**0.75


def _losses(trainee: Trainee, network: nn.Module, batch: Batch) -> Tensor:
    """Of each example, `(rows,)`."""
    task, device = trainee.task, next(network.parameters()).device
    batch = {name: column.to(device) for name, column in batch.items()}
    with at_rest(network):
        for module in normalising(network).values():
            module.train()
        return task.loss(task.outputs(network, batch), batch)[0]

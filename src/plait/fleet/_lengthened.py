"""Whether sequences may be made longer: members that share a pass get those of one length.

What fills up must not count, for the weights that there are and for those that training leads to. So a loss
and its gradients are held against each other, of a copy whose trained tensors of nothing but zeros (a head,
LoRA's B) are filled with small numbers: behind a head of zeros every loss is a guess's, whatever was read.
"""

from __future__ import annotations

import copy
import sys
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plait.errors import InputError
from plait.fleet._adapter import adapted
from plait.fleet._architecture import normalising
from plait.fleet._trainee import Trainee
from plait.tasks import Batch, at_rest

#: Standard deviation of what is put where all is zero.
_SMALL = 0.02
#: Bytes in float32 up to which a network of a short type is copied.
_COPIED = 4 << 30


class _Found(NamedTuple):
    """What a batch gives.

    Args:
        losses, weights: of each example, `(rows,)`.
        gradients: of the sum of losses, one for each trained tensor.
    """

    losses: Tensor
    weights: Tensor
    gradients: list[Tensor]


def check_lengthened(trainee: Trainee, batch: Batch, longer: Batch, most: int) -> None:
    """Nothing if a member learns the same from a batch whose sequences were filled up.

    Tried on the shortest and the longest sequence of the batch, and again once a batch is filled up to a
    length, or by a number of places, beyond what was tried. Where it is known that sequences of `most` come,
    they are filled up by twice as much as is asked for, so that few tries are needed.

    Args:
        trainee: the member, whose network at the start is asked.
        batch: its own, `(rows, length, …)` a column.
        longer: the same, filled up.
        most: how long sequences can be at most; `sys.maxsize` if nobody knows.

    Raises:
        InputError: what fills up counts: alone it would be trained in another way.
    """
    wanted = {n: _extent(c, longer[n]) for n, c in batch.items() if c.shape != longer[n].shape}
    tried = trainee.lengthened
    if all(_covers(tried.get(name), extent) for name, extent in wanted.items()):
        return
    rows = _ends([batch[name] for name in wanted], [_filler(longer[name]) for name in wanted])
    own = {name: column[rows] for name, column in batch.items()}
    filled = dict(own)
    for name, (length, places) in wanted.items():
        beyond = length if most == sys.maxsize else max(length, min(length + places, most))
        filled[name] = lengthened(own[name], beyond, _filler(longer[name]))
    network, eps = _network(trainee)
    _compare(trainee, _found(trainee, network, own), _found(trainee, network, filled), eps)
    for name in wanted:
        length, places = _extent(own[name], filled[name])
        so_far = tried.get(name, (0, 0))
        tried[name] = max(length, so_far[0]), max(places, so_far[1])


def lengthened(tensor: Tensor, length: int, value: float) -> Tensor:
    """`(rows, …)` with its second dimension filled up to a length, on the right."""
    missing = length - tensor.shape[1]
    return F.pad(tensor, [*[0, 0] * (tensor.dim() - 2), 0, missing], value=value) if missing else tensor


def _extent(own: Tensor, longer: Tensor) -> tuple[int, int]:
    """How long sequences are made, and by how many places longer."""
    return longer.shape[1], longer.shape[1] - own.shape[1]


def _covers(tried: tuple[int, int] | None, wanted: tuple[int, int]) -> bool:
    return tried is not None and tried[0] >= wanted[0] and tried[1] >= wanted[1]


def _filler(longer: Tensor) -> float:
    """What a column was filled up with."""
    return longer[:, -1].flatten()[0].item()


def _ends(columns: list[Tensor], fillers: list[float]) -> list[int]:
    """The rows of a batch with the shortest and the longest sequence: by where nothing but filler follows."""
    lengths = torch.zeros(len(columns[0]), dtype=torch.int64)
    for column, filler in zip(columns, fillers, strict=True):
        given = (column != filler).flatten(2).any(2) if column.dim() > 2 else column != filler
        if given.shape[1]:
            lengths += (given.cpu() * torch.arange(1, given.shape[1] + 1)).amax(1)
    order = lengths.argsort(stable=True).tolist()
    return list(dict.fromkeys([order[0], order[-1]]))


def _network(trainee: Trainee) -> tuple[nn.Module, float]:
    """A copy that may be changed, and how finely it computes.

    A network of a short type is tried in float32, as what fills up may count for less than it rounds.
    """
    network, whole = trainee.network, torch.finfo(torch.float32).eps
    eps = torch.finfo(next(network.parameters()).dtype).eps
    held = sum(p.numel() for p in network.parameters()) * torch.float32.itemsize
    short = eps > whole and held <= _COPIED
    if short or trainee.member.lora is None:
        network = copy.deepcopy(network)
    if short:
        network, eps = network.float(), whole
    if trainee.member.lora is not None:
        network = adapted(trainee.member, network, trainee.task, trainee.initial().parameters)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in _trained(network):
            if not parameter.any():
                parameter.copy_(torch.randn(parameter.shape, generator=random) * _SMALL)
    return network, eps


def _trained(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _found(trainee: Trainee, network: nn.Module, batch: Batch) -> _Found:
    task, device = trainee.task, next(network.parameters()).device
    batch = {name: column.to(device) for name, column in batch.items()}
    # cuDNN has no gradients of recurrent networks at rest.
    recurrent = any(isinstance(module, nn.RNNBase) for module in network.modules())
    plain = torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()
    with at_rest(network), torch.enable_grad(), plain:
        for module in normalising(network).values():
            module.train()
        losses, weights = task.loss(task.outputs(network, batch), batch)
        gradients: list[Tensor] = []
        if losses.requires_grad:
            gradients += torch.autograd.grad(losses.sum(), _trained(network), materialize_grads=True)
    return _Found(losses.detach(), weights.detach(), gradients)


def _compare(trainee: Trainee, alone: _Found, filled: _Found, eps: float) -> None:
    """Sums (of attention, of a gradient over places) run over more terms, and so are rounded otherwise.

    Gradients are held to the largest of all: some, as of a bias of keys, are zero but for rounding.
    """
    largest = max(
        (g.nan_to_num(0, 0, 0).abs().max().item() for g in alone.gradients if g.numel()), default=0.0
    )
    pairs = [("loss", alone.losses, filled.losses, eps**0.75, eps**0.75)]
    pairs += [("weight in the loss", alone.weights, filled.weights, eps**0.75, eps**0.75)]
    both = zip(alone.gradients, filled.gradients, strict=True)
    pairs += [("gradient", one, other, 0.0, largest * eps ** (2 / 3)) for one, other in both]
    for what, one, other, relative, absolute in pairs:
        if torch.allclose(one, other, rtol=relative, atol=absolute, equal_nan=True):
            continue
        worst = int((one - other).nan_to_num(torch.inf).abs().argmax())
        a, b = one.flatten()[worst].item(), other.flatten()[worst].item()
        raise InputError(
            f"what fills up a shorter sequence changes its {what}: {a:.6g} alone, "
            f"{b:.6g} filled up to the longest of all members",
            where=f"member `{trainee.member.name}`, task `{trainee.task.name}`",
            hint='give an `attention_mask`, what fills up (`Ragged`), or backend="sequential"',
        )

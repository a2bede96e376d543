"""Whether a head gives the same for its classes beside rows of other classes: it is tried.

What a head computes is Python code, which may use how many rows there are. So a copy is filled up, with zeros
as in a stack, and with small numbers, on which nothing may depend; and held against the head as it is.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from plait.fleet._dropout import dropout
from plait.fleet._noise import noise_kept
from plait.fleet._trainee import Trainee
from plait.tasks import at_rest

#: Standard deviation of what is put where all is zero, and where nothing may depend on it.
_SMALL = 0.02


def wider(head: nn.Module, classes: int) -> nn.Module:
    """A head of the same kind for more classes; what its tensors hold is not copied."""
    own: Any = copy.deepcopy(head)
    for module in own.modules():
        for name, held in list(module.named_parameters(recurse=False)):
            grown = held.new_zeros((classes, *held.shape[1:]))
            setattr(module, name, nn.Parameter(grown, requires_grad=held.requires_grad))
        for name, held in list(module.named_buffers(recurse=False)):
            setattr(module, name, held.new_zeros((classes, *held.shape[1:])))
    if isinstance(own, nn.Linear):
        own.out_features = classes
    return own


def fills(trainee: Trainee) -> bool:
    """Whether a member's head gives the same for its classes once it is filled up to more."""
    own: Any = trainee.task.head
    changed = "forward" in vars(own) or own._forward_hooks or own._forward_pre_hooks
    if type(own) is nn.Linear and not changed:
        return True
    sizes = {len(tensor) if tensor.dim() else 0 for tensor in own.state_dict().values()}
    classes = max(sizes, default=0)
    if not classes or len(sizes) > 1:
        return False
    network, random = copy.deepcopy(trainee.network), torch.Generator().manual_seed(0)
    head = network.get_submodule("head")
    filled = wider(head, 2 * classes + 1)
    with noise_kept():
        for name, row in filled.state_dict().items():
            held = head.state_dict()[name]
            if held.is_floating_point() and not held.any():  # as heads start that have learned nothing
                held.copy_(_noise(held, random))
            row[:classes] = held
        given = _given(trainee, network, head)
        same = _same(head, filled, given, classes)
        with torch.no_grad():
            for parameter in filled.parameters():
                parameter[classes:] = _noise(parameter[classes:], random)
        return same and _same(head, filled, given, classes)


def _noise(like: Tensor, random: torch.Generator) -> Tensor:
    return (torch.randn(like.shape, generator=random) * _SMALL).to(like)


def _given(trainee: Trainee, network: nn.Module, head: nn.Module) -> tuple[Any, Any]:
    """What a head is called with for an example, two of it."""
    device = next(network.parameters()).device
    batch = {name: torch.cat([column] * 2).to(device) for name, column in trainee.example.items()}
    found: list[tuple[Any, Any]] = []

    def note(_: nn.Module, args: Any, kwargs: Any) -> None:
        found.append((args, kwargs))

    hook = head.register_forward_pre_hook(note, with_kwargs=True)
    with at_rest(network), torch.no_grad():
        trainee.task.outputs(network, batch)
    hook.remove()
    return found[0]


def _same(head: nn.Module, filled: nn.Module, given: tuple[Any, Any], classes: int) -> bool:
    """Whether both give the same for the classes of the first, at rest and in training."""
    for training in (False, True):
        one, other = (_outputs(copy.deepcopy(each).train(training), given) for each in (head, filled))
        if one is None:
            continue
        if other is None or other.shape[-1:] != (len(next(iter(filled.state_dict().values()))),):
            return False
        eps = torch.finfo(one.dtype).eps ** 0.75
        largest = one.nan_to_num(0, 0, 0).abs().max().item()
        other = other[..., :classes]
        if one.shape != other.shape:
            return False
        if not torch.allclose(one, other, rtol=eps, atol=eps * largest, equal_nan=True):
            return False
    return True


def _outputs(head: nn.Module, given: tuple[Any, Any]) -> Tensor | None:
    """What a head gives; None if it can't be called, or gives no tensor of numbers."""
    args, kwargs = copy.deepcopy(given)
    try:
        with torch.no_grad(), dropout(torch.zeros((), dtype=torch.int32)):
            found = head(*args, **kwargs)
    except Exception:  # the user's code; what it says shows where it is trained
        return None
    return found if isinstance(found, Tensor) and found.is_floating_point() else None

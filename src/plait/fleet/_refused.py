"""What a network must not do to be in a stack, as far as it shows before it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from plait.errors import InputError
from plait.fleet._trainee import Trainee

HINT = 'backend="sequential" trains it, member by member'


class Unstackable(InputError):
    """A network turned out, as it ran, to be one that no stack can hold."""


def unstackable(network: nn.Module, what: str) -> Unstackable:
    """The error that a network can't be in a stack, and why."""
    return Unstackable(f"the network ({type(network).__name__}) can't be stacked: {what}", hint=HINT)


def hooks(tensor: Tensor) -> list[Any]:
    """What a tensor's gradient goes through, besides autograd."""
    held: Any = tensor
    tables = (held._backward_hooks, getattr(held, "_post_accumulate_grad_hooks", None))
    return [hook for table in tables for hook in (table or {}).values()]


def check_alone(trainee: Trainee, elsewhere: Sequence[tuple[str, str, str]]) -> None:
    """Nothing if a member's network can be in a stack, for all that shows of it before it runs.

    Args:
        trainee: the member.
        elsewhere: tensors of its network that attributes hold once more: module, attribute, tensor.

    Raises:
        InputError: it names the parameter or module that stands in the way.
    """
    problem = trainee.apart or next(_problems(trainee.network, elsewhere), None)
    if problem is not None:
        raise InputError(problem, where=f"member `{trainee.member.name}`", hint=HINT)


def _problems(network: nn.Module, elsewhere: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    for name, parameter in network.named_parameters():
        if hooks(parameter):
            yield f"parameter `{name}` has a hook on its gradient, which a stack would not call"
        if parameter.is_complex():
            yield f"parameter `{name}` is complex, which a stack can't train"
    for name, module in network.named_modules():
        if module._backward_hooks or module._backward_pre_hooks:
            yield f"{_place(network, name)} has a hook on its gradients, which a stack would not call"
    for name, key, tensor in elsewhere:
        # Each member's tensors are put where modules register them.
        place = _place(network, name)
        yield f"{place} holds `{tensor}` once more in its attribute `{key}`, out of a stack's reach"


def _place(network: nn.Module, name: str) -> str:
    kind = type(network.get_submodule(name)).__name__
    return f"module `{name}` ({kind})" if name else f"the network ({kind})"

"""A copy of a module that trains as the module would."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from plait.errors import InputError


def copied(module: nn.Module) -> nn.Module:
    """A copy; hooks on its parameters' gradients, which `copy.deepcopy` forgets, are the copy's too.

    What its attributes hold of a computation (pruning's weights) is copied as numbers, to be computed anew.

    Raises:
        InputError: it can't be copied.
    """
    held = [value for part in module.modules() for value in vars(part).values() if isinstance(value, Tensor)]
    memo: dict[int, Any] = {id(tensor): tensor.detach().clone() for tensor in held if not tensor.is_leaf}
    try:
        made = copy.deepcopy(module, memo)
    except (RuntimeError, TypeError) as error:  # of PyTorch's, and of what can't be copied
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        what = f"a module ({type(module).__name__}) can't be copied: {said}"
        raise InputError(what, hint="give a function that makes it") from error
    own = dict(made.named_parameters())
    for name, parameter in module.named_parameters():
        _hook(parameter, own[name], memo)
    return made


def _hook(parameter: Tensor, own: Tensor, memo: dict[int, Any]) -> None:
    """Put a parameter's hooks on another; a method of the module's becomes one of the copy's."""
    if own.requires_grad:
        for hook in (parameter._backward_hooks or {}).values():
            own.register_hook(copy.deepcopy(hook, memo))
        for hook in (getattr(parameter, "_post_accumulate_grad_hooks", None) or {}).values():
            own.register_post_accumulate_grad_hook(copy.deepcopy(hook, memo))

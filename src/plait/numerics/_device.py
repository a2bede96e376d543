"""Where tensors are computed."""

from __future__ import annotations

import torch

from plait.errors import InputError


def usable_device(name: str | torch.device, *, hint: str | None = None) -> torch.device:
    """The device, if torch can compute on it and give back what it found.

    Raises:
        InputError: it can't; with the hint.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0].partition(". ")[0]
        raise InputError(f"the device `{name}` can't be used: {reason}", hint=hint) from error
    return device

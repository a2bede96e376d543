"""Several documents in one row, each as if it were alone."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import torch
from torch import nn

from plait.errors import InputError


def best_fit(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Documents put together: the longest first, each where least room stays (best-fit decreasing).

    Args:
        lengths: of the documents, at most `room` each.
        room: tokens in a row.

    Returns:
        rows of numbers of documents.
    """
    bins: list[list[int]] = []
    # Room that is left and the row's number, in order, so that the tightest row is found by bisection.
    left: list[tuple[int, int]] = []
    for document in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = bisect.bisect_left(left, (lengths[document], -1))
        if place == len(left):
            number, free = len(bins), room
            bins.append([])
        else:
            free, number = left.pop(place)
        bins[number].append(document)
        bisect.insort(left, (free - lengths[document], number))
    return bins


def check_packing(model: nn.Module, ids: Sequence[int]) -> None:
    """Nothing, if a model keeps documents of one row apart.

    Args:
        model: a transformers model, called with `input_ids` and `position_ids`.
        ids: four tokens or more of its vocabulary.

    Raises:
        InputError: what a document gives depends on the one before it.
    """
    half = len(ids) // 2
    device = next(model.parameters()).device
    row = torch.tensor([list(ids)], device=device)
    places = torch.cat([torch.arange(half), torch.arange(len(ids) - half)]).unsqueeze(0).to(device)
    was = model.training
    model.eval()
    try:
        with torch.no_grad():
            together = model(input_ids=row, position_ids=places, use_cache=False)[0][:, half:]
            alone = model(input_ids=row[:, half:], position_ids=places[:, half:], use_cache=False)[0]
    except TypeError as error:
        raise InputError(f"{type(model).__name__} takes no `position_ids`, which packing needs",
                         hint="leave out packing=True") from error  # fmt: skip
    finally:
        model.train(was)
    short = together.dtype in (torch.bfloat16, torch.float16)
    if not torch.allclose(together, alone, rtol=0.1 if short else 1e-3, atol=0.1 if short else 1e-4):
        raise InputError(
            f"{type(model).__name__} lets documents of one row see each other",
            hint="leave out packing=True, or give it another attention (attn_implementation='sdpa')",
        )

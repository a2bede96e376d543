"""Copies: examples of two splits that hold the same, wherever they lie.

An example is a copy if one in the other split has its inputs and its label, however often either is there.
Numbers are compared as numbers, whatever type they are stored in (`common`). Labels are left out where one
split has none, or the same for all. Columns that only number examples (`Contents.ids`) are left out where the
others tell these apart. What a `prepare` makes of whole numbers and texts may be anything, as they may be
keys to look something up: some of these examples are made, and only if they are alike are they copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from plait.tasks._chance import by_chance, labels_by_chance
from plait.tasks._contents import Contents, common, kind_of

#: Examples that are made to see whether they are alike.
_MADE = 4


def twins(one: Contents, other: Contents) -> int:
    """How many examples of the smaller split are in the other, if that is at least half, and no chance."""
    pair = small, large = (one, other) if len(one) <= len(other) else (other, one)
    if one.data is other.data or not len(small):
        return 0  # they are held against each other by rows
    inputs, types = _compared(small, large)
    if not inputs:
        return 0
    label = _label(small, large, types)
    names = [*inputs, *([] if label is None else [label])]
    (values, counts), (others, _) = small.counted(names, types), large.counted(names, types)
    shared, places, _ = np.intersect1d(values, others, assume_unique=True, return_indices=True)
    found = int(counts[places].sum())
    if 2 * found < len(small):
        return 0
    # What inputs are like says which of a few classes an example has, but not what was measured.
    measured = label is not None and all(
        2 * len(each.counted([label], types)[0]) > len(each) for each in pair
    )
    if by_chance(found, small, large, names if measured else inputs, types):
        return 0
    if label is not None and labels_by_chance(small, large, inputs, label, types):
        return 0
    if (small.made or large.made) and not _tell(small, large, inputs, types):
        a, b = small.numbers(names, types), large.numbers(names, types)
        some = shared[np.linspace(0, len(shared) - 1, _MADE).astype(int)]
        if not all(_made_alike(small, large, *_rows(a, b, value)) for value in np.unique(some)):
            return 0
    return found


def _compared(one: Contents, other: Contents) -> tuple[list[str], dict[str, str]]:
    """The columns that say whether examples are copies, none if nothing can, and in which types."""
    shared = sorted(one.inputs.keys() & other.inputs.keys())
    types = {}
    for name in shared:
        if (to := _type(one, other, name)) is None:
            return [], {}
        types[name] = to
    if not any(set(each.inputs) - each.ids <= set(shared) for each in (one, other)):
        return [], {}  # each has a column that the other lacks
    rest = [name for name in shared if name not in one.ids & other.ids]
    return (rest if one.apart(rest, types) and other.apart(rest, types) else shared), types


def _type(one: Contents, other: Contents, name: str) -> str | None:
    """What values of a column of both are compared in; None if they can't be."""
    (shape, own), (other_shape, others) = kind_of(one.columns[name]), kind_of(other.columns[name])
    return common(own, others) if shape == other_shape else None


def _label(one: Contents, other: Contents, types: dict[str, str]) -> str | None:
    """The label, if both have one that tells examples apart; its type is put to the others."""
    label = one.label
    if label is None or label not in one.columns or label not in other.columns:
        return None
    if (to := _type(one, other, label)) is None:
        return None
    types[label] = to
    return label if all(len(each.counted([label], types)[0]) > 1 for each in (one, other)) else None


def _tell(one: Contents, other: Contents, inputs: Sequence[str], types: Mapping[str, str]) -> bool:
    """Whether columns that can't be keys tell examples from each other."""
    solid = [name for name in inputs if not one.may_be_key(name)]
    return one.apart(solid, types) and other.apart(solid, types)


def _rows(a: NDArray[np.uint64], b: NDArray[np.uint64], value: np.uint64) -> tuple[int, int]:
    return int(np.argmax(a == value)), int(np.argmax(b == value))


def _made_alike(one: Contents, other: Contents, row: int, other_row: int) -> bool:
    """Whether two examples, as they are made, have the same numbers for a model."""
    try:
        a, b = one.examples.batch([row]), other.examples.batch([other_row])
    except Exception:  # the user's code; what is wrong with it is told when examples are asked for
        return False
    names = (a.keys() & b.keys()) - one.ids - other.ids - {one.label}
    return bool(names) and all(a[name].shape == b[name].shape and _equal(a[name], b[name]) for name in names)


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(((a == b) | (torch.isnan(a) & torch.isnan(b))).all())

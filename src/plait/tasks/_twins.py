"""Copies: examples of two splits that hold the same, wherever they lie.

Columns are compared by the values that models get: in whatever width numbers are stored, without the label,
and without columns that only number examples (`Contents.ids`) where the others tell these apart. What a
`prepare` makes of whole numbers and texts may be anything, as they may be keys to look something up: some of
these examples are made, and only if they are alike are they copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from plait.tasks._contents import Contents, kind_of, stored

#: Bytes of a split up to which its numbers are compared with those of others.
_MOST = 256 << 20
#: Examples that are made to see whether they are alike.
_MADE = 4


def twins(one: Contents, other: Contents) -> int:
    """How many examples of the smaller split the other has as often, if that is at least half of them.

    Real data hold some examples twice, and data of few values hold all of them many times, but not as often
    in two splits. What is the same for all examples says nothing.
    """
    if one.data is other.data:
        return 0  # they are held against each other by rows
    names, bits = _compared(one, other)
    if not names:
        return 0
    (values, counts), (others, other_counts) = one.counted(names, bits), other.counted(names, bits)
    if min(len(values), len(others)) < 2:
        return 0
    shared, i, j = np.intersect1d(values, others, assume_unique=True, return_indices=True)
    alike = counts[i] == other_counts[j]
    found = int(counts[i][alike].sum())
    if 2 * found < min(len(one), len(other)):
        return 0
    if (one.made or other.made) and not _tell(one, other, names, bits):
        a, b = one.numbers(names, bits), other.numbers(names, bits)
        some = shared[alike][np.linspace(0, alike.sum() - 1, _MADE).astype(int)]
        if not all(_made_alike(one, other, *_rows(a, b, value)) for value in np.unique(some)):
            return 0
    return found


def _compared(one: Contents, other: Contents) -> tuple[list[str], Mapping[str, int]]:
    """The columns that say whether examples are copies, and in how many bits; none if nothing can."""
    shared = sorted(one.inputs.keys() & other.inputs.keys())
    if not shared or max(one.size(shared), other.size(shared)) > _MOST:
        return [], {}
    bits = {}
    for name in shared:
        (kind, own), (other_kind, others) = kind_of(one.inputs[name]), kind_of(other.inputs[name])
        if kind != other_kind:
            return [], {}
        same = stored(one.inputs[name]) == stored(other.inputs[name])
        bits[name] = 0 if same else min(own, others)
    rest = [name for name in shared if name not in one.ids & other.ids]
    if not any(set(each.inputs) - each.ids <= set(shared) for each in (one, other)):
        return [], {}  # each has a column that the other lacks
    return (rest if one.apart(rest, bits) and other.apart(rest, bits) else shared), bits


def _tell(one: Contents, other: Contents, names: Sequence[str], bits: Mapping[str, int]) -> bool:
    """Whether columns that can't be keys tell examples from each other."""
    solid = [name for name in names if not one.may_be_key(name)]
    return one.apart(solid, bits) and other.apart(solid, bits)


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

"""Splits that overlap: by where examples say they come from, by rows of one data set, by what they hold."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping

import numpy as np

from plait.errors import InputError
from plait.tasks._contents import Contents
from plait.tasks._examples import Examples
from plait.tasks._places import Place, place_of
from plait.tasks._subset import table_of
from plait.tasks._twins import twins

_HINT = "give every example to one split, so that nothing leaks from training into scores"


def leaks(splits: Mapping[str, Examples], label: str | None, where: str) -> list[InputError]:
    """Which splits overlap, and in what.

    Args:
        splits: all of a task.
        label: the column of labels, which may well be alike.
        where: the task, for messages.
    """
    held = {name: _Split(examples, label) for name, examples in splits.items()}
    problems = []
    for first, second in itertools.combinations(held, 2):
        one, other = held[first], held[second]
        shared = one.source & other.source
        if shared:
            what = f"share `{min(map(str, shared))}`"
        elif (rows := _common(one, other)) > 0:
            what = f"share {rows} of one data set's examples"
        elif (found := twins(one.contents, other.contents)) > 0:
            smaller = min(len(one.examples), len(other.examples))
            what = f"hold the same numbers: {found} of {smaller} examples are in both"
        else:
            continue
        problems.append(InputError(f"splits `{first}` and `{second}` {what}", where=where, hint=_HINT))
    return problems


class _Split:
    """A split, and what is found out of it if it is asked for."""

    def __init__(self, examples: Examples, label: str | None) -> None:
        self.examples, self.label = examples, label

    @functools.cached_property
    def source(self) -> set[str]:
        table, rows = table_of(self.examples)
        source = getattr(table, "source", None) or ()
        return set(source if rows is None else [source[int(row)] for row in rows if source])

    @functools.cached_property
    def place(self) -> Place:
        return place_of(self.examples, self.label)

    @functools.cached_property
    def contents(self) -> Contents:
        return Contents(self.examples, self.label)


def _common(one: _Split, other: _Split) -> int:
    """How many rows of one data set both have."""
    if one.examples is other.examples:
        return len(one.examples)
    a, b = one.place, other.place
    if a.root != b.root or not len(a.rows) or not len(b.rows):
        return 0
    if a.rows.max() < b.rows.min() or b.rows.max() < a.rows.min():
        return 0
    return len(np.intersect1d(a.rows, b.rows))

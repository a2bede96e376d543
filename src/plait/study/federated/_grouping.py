"""Which tasks learn together: the best of all divisions into so many groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: The search goes through all 3ⁿ pairs of a set and a part of it.
MOST_TASKS = 12


def group_score(affinity: NDArray[np.float64], group: Sequence[int]) -> float:
    """The sum over a group's tasks of how well they are placed in it.

    A task is as well placed as the others' steps help it: the mean of S_{i→j} over the others i. A task that
    is alone counts the mean of all affinities from it and to it.

    Args:
        affinity: `(tasks, tasks)`, S of a step for the row's task on the column's.
        group: tasks.
    """
    if len(group) == 1:
        own, count = group[0], len(affinity)
        others = [task for task in range(count) if task != own]
        if not others:
            return 0.0
        return float((affinity[own, others].mean() + affinity[others, own].mean()) / 2)
    return float(sum(np.mean([affinity[i, j] for i in group if i != j]) for j in group))


def best_groups(affinity: NDArray[np.float64], groups: int) -> list[list[int]]:
    """The division of all tasks into exactly so many groups with the largest mean placement.

    Every division is considered, though none twice in part: the best of a set of tasks is made of a group
    with its first task and the best of what is left.

    Args:
        affinity: `(tasks, tasks)`.
        groups: from 1 to the number of tasks.

    Returns:
        groups of tasks, each in order, the first with the first task.
    """
    count = len(affinity)
    sets = [[task for task in range(count) if members >> task & 1] for members in range(1 << count)]
    scores = [group_score(affinity, members) if members else 0.0 for members in sets]
    best: list[dict[int, tuple[float, int]]] = [{0: (0.0, 0)}]
    for number in range(1, groups + 1):
        known: dict[int, tuple[float, int]] = {}
        for members in range(1, 1 << count):
            if len(sets[members]) >= number:
                found = _best_first(members, best[number - 1], scores)
                known |= {} if found is None else {members: found}
        best.append(known)
    found, left = [], (1 << count) - 1
    for number in range(groups, 0, -1):
        group = best[number][left][1]
        found.append(sets[group])
        left &= ~group
    return found


def _best_first(
    members: int, rest: dict[int, tuple[float, int]], scores: list[float]
) -> tuple[float, int] | None:
    """The best group with a set's first task, where the rest can be divided; the score of both."""
    first, found = members & -members, None
    others = members ^ first
    part = others
    while True:
        left = others ^ part
        if left in rest:
            value = scores[part | first] + rest[left][0]
            if found is None or value > found[0]:
                found = value, part | first
        if part == 0:
            return found
        part = (part - 1) & others

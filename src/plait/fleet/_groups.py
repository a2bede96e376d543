"""Which members train together, and how: groups of those that are alike, a backend for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from plait.fleet._adapter_check import check as check_adapters
from plait.fleet._adapters import Adapters
from plait.fleet._architecture import check, signature
from plait.fleet._backend import Backend
from plait.fleet._sequential import Sequential
from plait.fleet._stacked import Stacked
from plait.fleet._trainee import State, Trainee

BackendName = Literal["auto", "sequential", "stacked", "adapters"]
BACKENDS = ("auto", "sequential", "stacked", "adapters")


@dataclass(frozen=True)
class Place:
    """Where and how fast: the device, and how many threads."""

    device: torch.device
    threads: int


@dataclass
class Group:
    """Members that take their steps together.

    Args:
        kind: their backend's name.
        trainees: in the fleet's order; those that have ended stay until most have, as a smaller stack would
            have to be recorded anew.
        backend: made when the group takes its first step.
    """

    kind: str
    trainees: list[Trainee]
    backend: Backend | None = field(default=None, repr=False)

    @property
    def names(self) -> list[str]:
        return [trainee.member.name for trainee in self.trainees]

    @property
    def sparse(self) -> bool:
        """Whether most of its members have ended."""
        return sum(t.running for t in self.trainees) * 2 <= len(self.trainees)


def make(kind: str, trainees: Sequence[Trainee], states: Sequence[State], place: Place) -> Backend:
    """A backend for some members."""
    if kind == "adapters":
        return Adapters(trainees, states, place.device, place.threads)
    if kind == "stacked":
        return Stacked(trainees, states, place.device, place.threads)
    return Sequential(trainees, states, place.device)


def grouped(
    trainees: Sequence[Trainee],
    backend: BackendName,
    choose: Callable[[Sequence[Trainee]], tuple[str, int]],
) -> list[Group]:
    """Groups of members.

    Args:
        trainees: those that run.
        backend: what the user asked for.
        choose: for members that are alike, a backend and how many members a group has at most.

    Raises:
        InputError: members that were to be stacked are not alike.
    """
    if not trainees:
        return []
    if backend != "auto":
        check_backend(trainees, backend)
        return [Group(backend, list(trainees))]
    groups = []
    for alike in families(trainees):
        kind, size = choose(alike)
        groups += [Group(kind, list(alike[start : start + size])) for start in range(0, len(alike), size)]
    return groups


def check_backend(trainees: Sequence[Trainee], backend: BackendName) -> None:
    """Nothing if a backend that the user asked for takes these members together.

    Raises:
        InputError: they are not alike.
    """
    if backend == "stacked":
        check(trainees)
    elif backend == "adapters":
        check_adapters(trainees)


def families(trainees: Sequence[Trainee]) -> list[list[Trainee]]:
    """Members that could be stacked, together."""
    found: list[tuple[Any, list[Trainee]]] = []
    for trainee in trainees:
        own = signature(trainee)
        for known, family in found:
            if known == own:
                family.append(trainee)
                break
        else:
            found.append((own, [trainee]))
    return [family for _, family in found]


def regrouped(facts: Sequence[tuple[str, list[str]]], trainees: Mapping[str, Trainee]) -> list[Group]:
    """The groups that a save tells of, each its backend and members: the same stacks give the same bits."""
    return [Group(kind, [trainees[name] for name in names]) for kind, names in facts]

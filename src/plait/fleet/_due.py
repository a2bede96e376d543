"""What is still to be done in a round; a fit that is cut off leaves it to the next one."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from plait.fleet._groups import Group
from plait.fleet._trainee import Trainee

#: A method of `Aftermath` and what it is called with, by name.
Part = partial[None]


@dataclass
class Due:
    """The round that a fleet is in.

    Args:
        groups: those whose members have yet to take their step.
        parts: what follows from steps and ends, in order; each stays until it is done.
        validated: records of validations for `on_round`.
        begun: whether a round has begun that is not over.
    """

    groups: list[Group] = field(default_factory=list)
    parts: deque[Part] = field(default_factory=deque)
    validated: list[dict[str, Any]] = field(default_factory=list)
    begun: bool = False

    def begin(self, groups: Sequence[Group]) -> None:
        """A round begins."""
        self.groups, self.begun = list(groups), True

    def close(self) -> None:
        """No member takes a further step in this round."""
        self.groups, self.begun = [], False

    def keep(self, groups: Sequence[Group], trainees: Collection[Trainee]) -> None:
        """Forget what is no longer the fleet's: members may have been made anew since."""
        known, held = {id(trainee) for trainee in trainees}, {id(group) for group in groups}
        self.groups = [group for group in self.groups if id(group) in held]
        whose = [part.keywords.get("trainee") for part in self.parts]
        self.parts = deque(p for p, t in zip(self.parts, whose, strict=True) if t is None or id(t) in known)

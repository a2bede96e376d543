"""What a backend is: it takes steps of its members, and gives their states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from plait.fleet._signals import hold
from plait.fleet._trainee import State, Trainee

__all__ = ["Backend", "Steps", "hold"]


@dataclass(frozen=True)
class Steps:
    """What one step of each member gave, `(members,)` each.

    Args:
        loss: mean over the step's examples, before the step.
        norm: of the gradient, before clipping.
        taken: False where loss or gradient is not finite; such a member keeps its weights.
        errors: of members whose data, network or loss raised one, by name; they keep their weights.
    """

    loss: NDArray[np.float64]
    norm: NDArray[np.float64]
    taken: NDArray[np.bool_]
    errors: Mapping[str, Exception] = field(default_factory=dict)


class Backend(Protocol):
    """Trains some members. Made from trainees and states; who leaves or joins, it is made anew."""

    name: str

    @property
    def trainees(self) -> Sequence[Trainee]:
        """The members, in the order of the arrays of `Steps`."""
        ...

    def step(self) -> Steps:
        """The next step of every member; the fleet counts them.

        One that changes the weights of all at once says so by `hold` when it is about to: signals wait then
        until the fleet has counted it.
        """
        ...

    def state(self, index: int) -> State:
        """A member's state; a copy."""
        ...

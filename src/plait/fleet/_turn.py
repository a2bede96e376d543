"""A step of a group; members whose own data, network or loss fails are told apart from the others."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from plait.errors import InputError
from plait.fleet._backend import Steps
from plait.fleet._groups import Group, Place, make
from plait.fleet._roster import Roster
from plait.fleet._sequential import Sequential
from plait.fleet._signals import undisturbed
from plait.fleet._trainee import State, Trainee
from plait.fleet._trial import told
from plait.tasks import copied

#: Members that are named where all of a group may be at fault.
_NAMED = 8


def turn(group: Group, roster: Roster, place: Place, one_by_one: Callable[[Group, Exception], bool]) -> Steps:
    """The next step of every member of a group, whose backend is made first if there is none.

    A backend that takes all members at once can't tell who fails: each then tries its step alone. Those that
    can't leave the group (the fleet ends them), and the others take theirs in a new backend.

    Args:
        group: it; who fails in a joint step is no longer in it afterwards, and is told of in `Steps.errors`.
        roster: where states are that no backend holds.
        place: where steps are taken.
        one_by_one: whether a group that can't take its step together, though each member could alone, goes
            on in the loop; asked with what was raised.

    Raises:
        InputError: the group can't take its step together, and may not go on in the loop.
    """
    errors, again = dict[str, Exception](), False
    while group.trainees:
        steps = _try(group, roster, place)
        if isinstance(steps, Steps):
            return Steps(steps.loss, steps.norm, steps.taken, {**steps.errors, **errors})
        found = _failing(group, roster, place)
        roster.release([group])
        if not found and again:
            if group.kind == Sequential.name or not one_by_one(group, steps):
                raise of_members(group.names, "a step failed", steps) from steps
            group.kind = Sequential.name
        # What none of them shows alone may have been there for a moment: once more, then it is the group's.
        again = not found
        errors |= found
        group.trainees = [t for t in group.trainees if t.member.name not in found]
    nothing = np.empty(0)
    return Steps(nothing, nothing, nothing.astype(bool), errors)


def _try(group: Group, roster: Roster, place: Place) -> Steps | Exception:
    """A step of all of a group, or what was raised."""
    try:
        if group.backend is None:
            _make(group, roster, place)
        assert group.backend is not None
        steps = group.backend.step()
        # What was raised once may have been there for a moment; who took the step doesn't take another.
        return group.backend.step() if steps.errors else steps
    except Exception as error:
        return error


def of_members(names: Sequence[str], what: str, error: Exception) -> InputError:
    """An error of the user's networks, data or losses, with the members whose it is."""
    if isinstance(error, InputError):
        return error
    named = ", ".join(f"`{name}`" for name in names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
    where = f"{'member' if len(names) == 1 else 'one of the members'} {named}"
    return InputError(f"{what}: {told(error)}", where=where)


def _make(group: Group, roster: Roster, place: Place) -> None:
    states = [roster.state(name) for name in group.names]
    backend = make(group.kind, group.trainees, states, place)
    with undisturbed():
        group.backend = backend
        for trainee in group.trainees:
            if trainee.running:
                del roster.states[trainee.member.name]


def _failing(group: Group, roster: Roster, place: Place) -> dict[str, Exception]:
    """Running members whose next step fails if they take it by themselves, each with its error.

    Their examples are read first: that is cheap, and where most errors are.
    """
    running = [trainee for trainee in group.trainees if trainee.running]
    return _raised(running, _read) or _raised(
        running, lambda t: _alone(t, roster.state(t.member.name), place)
    )


def _raised(trainees: Sequence[Trainee], act: Callable[[Trainee], object]) -> dict[str, Exception]:
    """Member → what it raises."""
    found: dict[str, Exception] = {}
    for trainee in trainees:
        with _noted(found, trainee.member.name):
            act(trainee)
    return found


@contextmanager
def _noted(found: dict[str, Exception], name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        found[name] = error


def _read(trainee: Trainee) -> None:
    for micro_batch in range(trainee.member.accumulate):
        trainee.batch(micro_batch)


def _alone(trainee: Trainee, state: State, place: Place) -> None:
    """A member's next step alone; neither its network nor its state is changed."""
    own = trainee if trainee.member.lora is not None else copy.copy(trainee)
    if own is not trainee:
        own.network = copied(trainee.network)
    for error in Sequential([own], [state], place.device).step().errors.values():
        raise error

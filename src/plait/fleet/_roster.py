"""Who is in a fleet: members that wait, that train and that have ended, and what each is at the moment."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from plait.errors import InputError, InputErrors, nearest
from plait.fleet._adapter import adapted
from plait.fleet._build import base_of, build, build_adapter, find_task, started
from plait.fleet._check import check_names
from plait.fleet._facts import Progress
from plait.fleet._groups import Group
from plait.fleet._member import After, Member
from plait.fleet._signals import undisturbed
from plait.fleet._trainee import State, Trainee
from plait.fleet._trial import told
from plait.fleet._warnings import warn
from plait.tasks import Task, copied


class Roster:
    """Members of a fleet, from joining to their end.

    Args:
        tasks: those that members name.
        model: where members start that don't say.
    """

    def __init__(self, tasks: Mapping[str, Task], model: nn.Module | Callable[[], nn.Module] | None) -> None:
        self.tasks, self.model = tasks, model
        self.trainees: dict[str, Trainee] = {}
        self.waiting: dict[str, Member] = {}
        #: Those that ended before they could start: how, and why.
        self.never: dict[str, tuple[str, str]] = {}
        #: What no backend holds.
        self.states: dict[str, State] = {}
        #: The weights of the best validation, of members that end with those.
        self.kept: dict[str, State] = {}
        #: Members whose end has had its consequences.
        self.over: set[str] = set()
        self.groups: list[Group] = []
        self._bases: dict[Any, nn.Module] = {}
        self._mixtures: dict[Any, Task] = {}

    @property
    def names(self) -> list[str]:
        """All members."""
        return [*self.trainees, *self.waiting, *self.never]

    @property
    def running(self) -> list[Trainee]:
        """Those that take further steps."""
        return [trainee for trainee in self.trainees.values() if trainee.running]

    @property
    def ended(self) -> list[Trainee]:
        """Those whose end has yet to have its consequences."""
        return [t for name, t in self.trainees.items() if not t.running and name not in self.over]

    @property
    def status(self) -> dict[str, str]:
        """How each member is, as `Fleet.status` has it."""
        found = {name: trainee.status for name, trainee in self.trainees.items()}
        found |= dict.fromkeys(self.waiting, "waiting")
        return found | {name: status for name, (status, _) in self.never.items()}

    def trainee(self, name: str) -> Trainee:
        """A member that has started.

        Raises:
            InputError: there is none of that name, it waits, or it ended before it could start.
        """
        if name in self.trainees:
            return self.trainees[name]
        if name in self.waiting:
            hint = f"it waits for `{_first(self.waiting[name])}` to end"
            raise InputError(f"member `{name}` has not started", hint=hint)
        if name in self.never:
            status, why = self.never[name]
            raise InputError(f"member `{name}` never started: it is {status}", hint=why)
        if not isinstance(name, str):
            hint = ", ".join(f"`{own}`" for own in self.names[:8])
            raise InputError(f"members are found by their names, and {name!r} is no string", hint=hint)
        raise InputError(f"there is no member `{name}`", hint=nearest(name, self.names))

    def state(self, name: str) -> State:
        """A member's weights, buffers and moments as they are now."""
        self.trainee(name)
        if name in self.states:
            return self.states[name]
        group = next(group for group in self.groups if name in group.names)
        assert group.backend is not None
        return group.backend.state(group.names.index(name))

    def release(self, groups: Iterable[Group]) -> None:
        """Take the states of these groups' members back from what holds them."""
        groups = list(groups)
        held = self._held(groups)
        with undisturbed():
            self.states |= held
            for group in groups:
                group.backend = None

    def _held(self, groups: Iterable[Group]) -> dict[str, State]:
        return {name: self.state(name) for group in groups for name in group.names}

    def network(self, name: str) -> nn.Module:
        """A member's network with its weights of the moment; a copy, but for a base that adapters share."""
        trainee, state = self.trainee(name), self.state(name)
        if trainee.member.lora is not None:
            return adapted(trainee.member, trainee.network, trainee.task, state.parameters).eval()
        network = copied(trainee.network).to("cpu")
        state.put_into(network)
        return network.eval()

    # ---- joining and starting

    def join(self, members: Sequence[Member], *, training: bool = False) -> None:
        """New members; those that need not wait start.

        Args:
            members: they.
            training: whether others train at the moment: a member that can't be built then fails alone.

        Raises:
            InputError: two have one name; or, if nobody trains, one can't be built.
        """
        check_names(members, self.names)
        with self.whole():
            self.waiting |= {member.name: member for member in members}
            for look in (self._start_if_free, self._rehearse):
                for member in members:
                    with self._alone(member.name) if training else nullcontext():
                        look(member)

    def _start_if_free(self, member: Member) -> None:
        first = _first(member)
        if first in self.never:
            what = f"it starts after `{first}`, which never started"
            raise InputError(what, where=f"member `{member.name}`", hint="give it another start")
        find_task(member, self.tasks, self._mixtures).split("train")
        before = None if first is None else self.trainees.get(first)
        if first is None or (before is not None and not before.running):
            self.start(member.name)

    def _rehearse(self, member: Member) -> None:
        """Build a member that waits from what those before it are now: whether it can be shows early."""
        first = _first(member)
        while first in self.waiting:
            first = _first(self.waiting[first])
        if member.name in self.waiting and first in self.trainees:
            self._built(member, first)

    def start(self, name: str) -> None:
        """A waiting member starts."""
        member = self.waiting[name]
        trainee, state = self._built(member, _first(member))
        with undisturbed():
            self.trainees[name], self.states[name] = trainee, state
            del self.waiting[name]

    def _built(self, member: Member, first: str | None) -> tuple[Trainee, State]:
        """A member ready to train, and the state it starts in: another's weights, if there is a first."""
        task = find_task(member, self.tasks, self._mixtures)
        if member.lora is None:
            trainee = build(member, task, self.model, None if first is None else self.network(first))
            return trainee, trainee.initial()
        trainee = build_adapter(member, task, self._base(member, first))
        state = trainee.initial()
        return trainee, state if first is None else started(member, state, self.state(first))

    def start_after(self, ended: str) -> None:
        """Those start that waited for a member; one that can't be built fails, and the others go on."""
        for name in [name for name, member in self.waiting.items() if _first(member) == ended]:
            with self._alone(name):
                self.start(name)

    def refuse(self, name: str, error: Exception) -> None:
        """A member that has just started fails: it can't be trained as the others are."""
        self.waiting[name] = self.trainees.pop(name).member
        del self.states[name]
        self._fail(name, error)

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """A member that can't be built fails, and nobody else."""
        try:
            yield
        except Exception as error:
            self._fail(name, error)

    def _fail(self, name: str, error: Exception) -> None:
        """A member that waits never starts."""
        parts = error.problems if isinstance(error, InputErrors) else [error]
        what = "; ".join(each.what if isinstance(each, InputError) else told(each) for each in parts)
        why = f"it could not be started: {what}"
        self.end(name, "failed", why)
        warn(f"member `{name}` failed: {why}")

    def _base(self, member: Member, first: str | None) -> nn.Module:
        """The one base of all members with adapters that start alike."""
        if first is not None:
            return self.trainees[first].network
        source = self.model if member.start is None else member.start
        key = source if isinstance(source, str | Path) else id(source)
        if key not in self._bases:
            self._bases[key] = base_of(member, self.model)
        return self._bases[key]

    # ---- ending

    def end(self, name: str, status: str, why: str) -> None:
        """A member takes no further step; one that waits never starts, nor do those that wait for it."""
        if name in self.waiting:
            del self.waiting[name]
            self.never[name] = status, why
            self._fail_after([name])
        elif name not in self.never and self.trainee(name).running:
            self.trainees[name].status, self.trainees[name].why = status, why

    def keep_out(self, never: Mapping[str, tuple[str, str]]) -> None:
        """Members that never started, as they were saved, whether they are here or not.

        Args:
            never: how each ended, and why.
        """
        for name in never:
            self.waiting.pop(name, None)
            self.trainees.pop(name, None)
            self.states.pop(name, None)
        self.never |= never
        self._fail_after(never)

    def _fail_after(self, never: Iterable[str]) -> None:
        """Those fail that wait for members which never started."""
        for first in never:
            for name in [name for name, member in self.waiting.items() if _first(member) == first]:
                reason = f"it starts after `{first}`, which never started"
                self.end(name, "failed", reason)
                warn(f"member `{name}` failed: {reason}")

    def replace(self, member: Member) -> None:
        """Forget the member of this name, which has ended, for a new one.

        Raises:
            InputError: the new one can't be built; the other is still there then.
        """
        with self.whole():
            left = [group for group in self.groups if member.name in group.names]
            self.states |= self._held(left)
            self.groups = [group for group in self.groups if group not in left]
            del self.trainees[member.name], self.states[member.name]
            self.kept.pop(member.name, None)
            self.over.discard(member.name)
            self.join([member])

    @contextmanager
    def whole(self) -> Iterator[None]:
        """All that is done inside, or nothing of it where something is raised."""
        parts = ("trainees", "waiting", "never", "states", "kept", "over", "groups")
        held = {part: copy.copy(getattr(self, part)) for part in parts}
        try:
            yield
        except BaseException:
            vars(self).update(held)
            raise

    def restore(self, name: str, state: State, progress: Progress) -> None:
        """A member as it was saved."""
        self.states[name], trainee = state, self.trainees[name]
        trainee.step, trainee.status, trainee.why = progress.step, progress.status, progress.why
        trainee.best, trainee.waited = progress.best, progress.waited


def _first(member: Member) -> str | None:
    """The member that one waits for."""
    return member.start.member if isinstance(member.start, After) else None

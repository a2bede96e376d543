"""A fleet: members that train at once, each as if it were alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from plait.errors import InputError, nearest
from plait.fleet._architecture import signature
from plait.fleet._auto import Choice, choose
from plait.fleet._build import build, check_names, find_task, named_tasks
from plait.fleet._groups import BackendName, Group, Place, grouped
from plait.fleet._loop import Loop
from plait.fleet._member import After, Member
from plait.fleet._trainee import State, Trainee
from plait.tasks import Suite, Task


class Fleet:
    """Many models, trained in one run.

    ```python
    fleet = plait.Fleet([Member(name="a", task=digits, steps=200), …], model=network).fit()
    fleet["a"]  # an nn.Module
    ```

    Args:
        members: what is trained; each has a name of its own.
        tasks: a suite, or tasks that members name.
        model: where members start that don't say; a module (copied) or a function that makes one, called
            under the member's seed.
        backend: `auto` times the ways there are on the members and takes the fastest; or `stacked`,
            `adapters`, `sequential`.
        out: folder for saves and `metrics.jsonl`; nothing is written without.
        save_every: rounds (a step of every member) between saves; 0 for the end alone.
        log_every: steps between records of a member's loss.
        device: where members are trained.
        threads: of this process; PyTorch's own number if None.
        writers: further places for metrics, such as `TensorBoard`.

    Raises:
        InputError: two members of one name, a task that is not there, data that don't fit a network, …
    """

    def __init__(
        self,
        members: Sequence[Member],
        tasks: Suite | Sequence[Task] | Mapping[str, Task] | Task | None = None,
        *,
        model: nn.Module | Callable[[], nn.Module] | None = None,
        backend: BackendName = "auto",
        out: str | Path | None = None,
        save_every: int = 0,
        log_every: int = 10,
        device: str | torch.device = "cpu",
        threads: int | None = None,
        writers: Sequence[Any] = (),
    ) -> None:
        if model is None and isinstance(tasks, Suite):
            model = tasks.base
        self.tasks, self.model = named_tasks(tasks), model
        self.backend: BackendName = backend
        self.out = None if out is None else Path(out)
        self.save_every, self.log_every, self.writers = save_every, log_every, list(writers)
        self.place = Place(torch.device(device), threads or torch.get_num_threads())
        #: What was logged: records of losses and validations, in order.
        self.history: list[dict[str, Any]] = []
        #: How backends were chosen: the first of some members that are alike, and what was measured.
        self.choices: dict[str, Choice] = {}
        self.callbacks: list[Any] = []
        self.round = 0
        self._trainees: dict[str, Trainee] = {}
        self._waiting: dict[str, Member] = {}
        self._states: dict[str, State] = {}
        self._kept: dict[str, State] = {}
        self._groups: list[Group] = []
        if not members:
            raise InputError("a fleet needs a member")
        check_names(members)
        for member in members:
            self._join(member)

    # ---- who is in it

    @property
    def members(self) -> list[str]:
        """Names of all members, in order."""
        return [*self._trainees, *self._waiting]

    @property
    def status(self) -> dict[str, str]:
        """Name → `waiting`, `running`, `finished`, `stopped`, `dropped` or `failed`."""
        return {n: t.status for n, t in self._trainees.items()} | dict.fromkeys(self._waiting, "waiting")

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def __contains__(self, name: object) -> bool:
        return name in self.members

    def __getitem__(self, name: str) -> nn.Module:
        """A member's network with its weights of the moment, head included: a plain module, a copy."""
        trainee = self._trainee(name)
        network = copy.deepcopy(trainee.network).to("cpu")
        _load(network, self.state(name))
        return network.eval()

    def state(self, name: str) -> State:
        """A member's weights, buffers and moments as they are now; not to be changed."""
        self._trainee(name)
        if name in self._states:
            return self._states[name]
        group = next(group for group in self._groups if name in group.names)
        assert group.backend is not None
        return group.backend.state(group.names.index(name))

    def add(self, member: Member) -> None:
        """Let a member join, before training or during it; the others are not disturbed."""
        check_names([member], self.members)
        self._join(member)

    def drop(self, name: str, why: str = "dropped") -> None:
        """End a member's training; it keeps the weights it has."""
        self._end(name, "dropped", why)

    def stop(self, name: str, why: str = "stopped") -> None:
        """End a member's training early, as good enough."""
        self._end(name, "stopped", why)

    # ---- training

    def fit(self, *, callbacks: Sequence[Any] = (), resume: bool = False, quiet: bool | None = None) -> Fleet:
        """Train every member to its end.

        Args:
            callbacks: objects with some of the hooks of `plait.fleet.Callback`.
            resume: go on from the last save in `out`; start if there is none.
            quiet: no table of progress; None shows one on a terminal.

        Raises:
            InputError: the save is another fleet's, a disk is full, members can't be stacked, …
        """
        self.callbacks = list(callbacks)
        Loop(self, quiet=quiet).run(resume=resume)
        return self

    # ---- what the loop needs

    def _join(self, member: Member) -> None:
        self._waiting[member.name] = member
        task = find_task(member, self.tasks)
        if isinstance(member.start, After):
            first = self._trainees.get(member.start.member)
            if first is None or first.running:
                task.split("train")
                return
        self._start(member.name)

    def _start(self, name: str) -> None:
        """A waiting member starts."""
        member = self._waiting.pop(name)
        start = self[member.start.member] if isinstance(member.start, After) else None
        trainee = build(member, find_task(member, self.tasks), self.model, start)
        self._trainees[name] = trainee
        self._states[name] = trainee.initial()

    def _start_waiting(self, ended: str) -> None:
        """Those start that waited for a member."""
        for name, member in list(self._waiting.items()):
            if isinstance(member.start, After) and member.start.member == ended:
                self._start(name)

    def _restore(self, name: str, state: State, facts: Mapping[str, Any]) -> None:
        """A member as it was saved."""
        self._states[name] = state
        for key, value in facts.items():
            setattr(self._trainees[name], key, value)

    def _trainee(self, name: str) -> Trainee:
        if name not in self._trainees:
            if name in self._waiting:
                raise InputError(f"member `{name}` has not started", hint="it waits for another to finish")
            raise InputError(f"there is no member `{name}`", hint=nearest(name, self.members))
        return self._trainees[name]

    def _end(self, name: str, status: str, why: str) -> None:
        trainee = self._trainee(name)
        if trainee.running:
            trainee.status, trainee.why = status, why

    def _regroup(self) -> None:
        """New groups of those that run; what backends hold is kept."""
        for name in [name for group in self._groups for name in group.names]:
            self._states[name] = self.state(name)
        self._groups = grouped([t for t in self._trainees.values() if t.running], self.backend, self._choose)

    def _choose(self, alike: Sequence[Trainee]) -> tuple[str, int]:
        """How members that are alike are trained; measured once for each kind."""
        own = signature(alike[0])
        for name, choice in self.choices.items():
            if signature(self._trainees[name]) == own:
                return choice.kind, choice.size
        choice = choose(alike, lambda trainee: self.state(trainee.member.name), self.place)
        self.choices[alike[0].member.name] = choice
        return choice.kind, choice.size


def _load(network: nn.Module, state: State) -> None:
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(state.parameters[name])
        for name, buffer in network.named_buffers():
            buffer.copy_(state.buffers[name])

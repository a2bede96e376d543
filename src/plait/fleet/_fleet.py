"""A fleet: members that train at once, each as if it were alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from plait.errors import InputError, nearest
from plait.fleet._adapter import adapted
from plait.fleet._architecture import signature
from plait.fleet._auto import Choice, choose
from plait.fleet._build import (
    base_of,
    build,
    build_adapter,
    check_names,
    check_numbers,
    find_task,
    named_tasks,
    started,
)
from plait.fleet._export import export
from plait.fleet._groups import BackendName, Group, Place, grouped
from plait.fleet._loop import Loop
from plait.fleet._member import After, Member
from plait.fleet._route import Router
from plait.fleet._table import Table, from_frame, predict, refit
from plait.fleet._trainee import State, Trainee
from plait.numerics import usable_device
from plait.tasks import Loss, Metric, Suite, Task


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
        check_numbers(save_every=save_every, log_every=log_every, out=out)
        self.tasks, self.model = named_tasks(tasks), model
        self.backend: BackendName = backend
        self.out = None if out is None else Path(out)
        self.save_every, self.log_every, self.writers = save_every, log_every, list(writers)
        self.place = Place(usable_device(device), threads or torch.get_num_threads())
        #: What was logged: records of losses and validations, in order.
        self.history: list[dict[str, Any]] = []
        #: How backends were chosen: the first of some members that are alike, and what was measured.
        self.choices: dict[str, Choice] = {}
        self.callbacks: list[Any] = []
        self.round = 0
        #: The round of its last save, by this object.
        self.saved_round: int | None = None
        self._trainees: dict[str, Trainee] = {}
        self._waiting: dict[str, Member] = {}
        self._states: dict[str, State] = {}
        self._kept: dict[str, State] = {}
        self._groups: list[Group] = []
        self._bases: dict[Any, nn.Module] = {}
        self._mixtures: dict[Any, Task] = {}
        self._table: Table | None = None
        self._router: Router | None = None
        if not members:
            raise InputError("a fleet needs a member")
        check_names(members)
        for member in members:
            self._join(member)

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        by: str | Sequence[str],
        model: nn.Module | Callable[[], nn.Module],
        target: str,
        features: Sequence[str] | None = None,
        loss: Loss | None = None,
        metric: Metric | None = None,
        validation: float = 0.0,
        seed: int = 0,
        backend: BackendName = "auto",
        out: str | Path | None = None,
        threads: int | None = None,
        **settings: Any,
    ) -> Fleet:
        """A member for each group of a data frame; groups may be of unequal size.

        Args:
            frame: a pandas data frame, or what has its columns.
            by: the column that names the groups; members have its values as names (several: `a, b`).
            model: takes `(rows, features)`; a module, or a function that makes one.
            target: the column to learn. Floating-point numbers are regressed; anything else is a class, its
                place among the sorted values.
            features: columns that the model gets; all others if None.
            loss: by the target if None.
            metric: by the target if None.
            validation: share of each group's rows kept for validation.
            seed: of members, and of that choice.
            backend: as for `Fleet`.
            out: as for `Fleet`.
            threads: as for `Fleet`.
            settings: of every member, as for `Member`.

        Raises:
            InputError: a column is missing, is no number, or holds NaN; no rows.
        """
        table, members = from_frame(
            frame,
            by=by,
            target=target,
            features=features,
            loss=loss,
            metric=metric,
            validation=validation,
            seed=seed,
            settings=settings,
        )
        fleet = cls(members, model=model, backend=backend, out=out, threads=threads)
        fleet._table = table
        return fleet

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
        """A member's network with its weights of the moment, head included: a plain module, a copy.

        With a `lora` it is a PEFT model around the fleet's one base, whose weights it shares.
        """
        trainee, state = self._trainee(name), self.state(name)
        if trainee.member.lora is not None:
            return adapted(trainee.member, trainee.network, trainee.task, state.parameters).eval()
        network = copy.deepcopy(trainee.network).to("cpu")
        _load(network, state)
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
        self.callbacks, self._router = list(callbacks), None
        cuda = self.place.device.type == "cuda"
        with torch.random.fork_rng(devices=[self.place.device] if cuda else []):
            Loop(self, quiet=quiet).run(resume=resume)
        return self

    def refit(self, frame: Any, **fit: Any) -> list[str]:
        """Train again those groups whose rows changed, and new ones; the others keep their weights.

        Args:
            frame: a whole table, as for `from_frame`.
            fit: as for `fit`.

        Returns:
            the names of those that trained.
        """
        changed = refit(self, frame)
        self.fit(**fit)
        return changed

    # ---- use

    def outputs(self, data: Any, member: str | Sequence[str] | None = None) -> Tensor:
        """What each row's member gives for it, all in one batched pass: `(rows, …)`.

        Args:
            data: rows as array, tensor, named columns, or a frame like the one of `from_frame`.
            member: the name of each row's member, or one for all; a frame's own column if None.

        Raises:
            InputError: a member is not there, or there are not as many names as rows.
        """
        return predict(self, data, member)[0]

    def predict(self, data: Any, member: str | Sequence[str] | None = None) -> NDArray[Any]:
        """Each row's prediction: a class (as in the frame, or its number) or the model's numbers.

        Args and errors as for `outputs`.
        """
        outputs, logits = predict(self, data, member)
        if logits:
            chosen = outputs.argmax(-1).numpy()
            classes = None if self._table is None else self._table.layout.classes
            return chosen if classes is None else np.array(classes)[chosen]
        return outputs.squeeze(-1).numpy() if outputs.shape[-1] == 1 else outputs.numpy()

    def save(self, folder: str | Path, *, base: str | None = None) -> list[Path]:
        """Write each member's network into a folder of its own: transformers' models as transformers does,
        adapters as PEFT does, others as safetensors.

        A task's head lies beside the body as `head.safetensors`.

        Args:
            folder: new or empty.
            base: path or hub id of the base that adapters name; the one their `LoraConfig` says if None.

        Returns:
            the folders.

        Raises:
            InputError: the folder is not empty, or adapters have no base to name.
        """
        return export(self, Path(folder), base)

    # ---- what the loop needs

    def _join(self, member: Member) -> None:
        self._waiting[member.name] = member
        task = find_task(member, self.tasks, self._mixtures)
        if isinstance(member.start, After):
            first = self._trainees.get(member.start.member)
            if first is None or first.running:
                task.split("train")
                return
        self._start(member.name)

    def _start(self, name: str) -> None:
        """A waiting member starts."""
        member = self._waiting.pop(name)
        task, first = find_task(member, self.tasks, self._mixtures), member.start
        if member.lora is not None:
            trainee = build_adapter(member, task, self._base(member))
        else:
            start = self[first.member] if isinstance(first, After) else None
            trainee = build(member, task, self.model, start)
        state = trainee.initial()
        if member.lora is not None and isinstance(first, After):
            state = started(member, state, self.state(first.member))
        self._trainees[name], self._states[name] = trainee, state

    def _base(self, member: Member) -> nn.Module:
        """The one base of all members with adapters that start alike."""
        if isinstance(member.start, After):
            return self._trainees[member.start.member].network
        source = self.model if member.start is None else member.start
        key = source if isinstance(source, str | Path) else id(source)
        if key not in self._bases:
            self._bases[key] = base_of(member, self.model)
        return self._bases[key]

    def _start_waiting(self, ended: str) -> None:
        """Those start that waited for a member."""
        for name, member in list(self._waiting.items()):
            if isinstance(member.start, After) and member.start.member == ended:
                self._start(name)

    def _remove(self, name: str) -> None:
        """Forget a member that has ended."""
        del self._trainees[name], self._states[name]
        self._groups = [group for group in self._groups if name not in group.names]

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

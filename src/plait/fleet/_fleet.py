"""A fleet: members that train at once, each as if it were alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from plait.errors import InputError
from plait.fleet import _predict
from plait.fleet._auto import Choice
from plait.fleet._callbacks import check_callbacks
from plait.fleet._check import check_settings, listed, named_tasks
from plait.fleet._due import Due
from plait.fleet._export import export
from plait.fleet._groups import BackendName, Place
from plait.fleet._loop import Loop
from plait.fleet._member import Member
from plait.fleet._memory import memory_kept
from plait.fleet._noise import noise_kept
from plait.fleet._predict import Names
from plait.fleet._roster import Roster
from plait.fleet._route import Router
from plait.fleet._table import Table, from_frame, refit
from plait.fleet._trainee import State
from plait.numerics import torch_threads, usable_device
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
        threads: of this process while it trains; those that PyTorch has then if None.
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
        check_settings(
            backend=backend,
            save_every=save_every,
            log_every=log_every,
            threads=threads,
            out=out,
            model=model,
            writers=writers,
        )
        self.tasks, self.model = named_tasks(tasks), model
        self.backend: BackendName = backend
        self.out = None if out is None else Path(out)
        self.save_every, self.log_every, self.writers = save_every, log_every, list(writers)
        self.threads, self.place = threads, Place(usable_device(device), threads or torch.get_num_threads())
        #: What was logged: records of losses and validations, in order.
        self.history: list[dict[str, Any]] = []
        #: How backends were chosen: the first of some members that are alike, and what was measured.
        self.choices: dict[str, Choice] = {}
        self.callbacks: list[Any] = []
        self.round = 0
        #: The round of its last save, which it wrote or went on from.
        self.saved_round: int | None = None
        self._table: Table | None = None
        self._router: Router | None = None
        self._training = False
        self._due = Due()
        #: Which saves are its own, as `Store` has it, and how many records and bytes its `metrics.jsonl` has.
        self._own = set[str]()
        self._logged: tuple[int, int] = (0, 0)
        #: Those callbacks of its last fit that have something to save.
        self._lasting: list[Any] = []
        self._roster = Roster(self.tasks, model)
        self._roster.join(listed(members))
        if not len(self):
            raise InputError("a fleet needs a member")

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
        save_every: int = 0,
        log_every: int = 10,
        device: str | torch.device = "cpu",
        threads: int | None = None,
        writers: Sequence[Any] = (),
        **settings: Any,
    ) -> Fleet:
        """A member for each group of a data frame; groups may be of unequal size.

        Args:
            frame: a pandas data frame, what has its columns, or a dict of columns.
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
            save_every: as for `Fleet`.
            log_every: as for `Fleet`.
            device: as for `Fleet`.
            threads: as for `Fleet`.
            writers: as for `Fleet`.
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
        fleet = cls(
            members,
            model=model,
            backend=backend,
            out=out,
            save_every=save_every,
            log_every=log_every,
            device=device,
            threads=threads,
            writers=writers,
        )
        fleet._table = table
        return fleet

    # ---- who is in it

    @property
    def members(self) -> list[str]:
        """Names of all members, in order."""
        return self._roster.names

    @property
    def status(self) -> dict[str, str]:
        """Name → `waiting`, `running`, `finished`, `stopped`, `dropped` or `failed`."""
        return self._roster.status

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
        return self._roster.network(name)

    def state(self, name: str) -> State:
        """A member's weights, buffers and moments as they are now; not to be changed."""
        return self._roster.state(name)

    def add(self, member: Member) -> None:
        """Let a member join, before training or during it; the others are not disturbed.

        One that can't be built is refused; during training it fails, with a warning, and the others go on.
        """
        self._router = None
        self._roster.join([member], training=self._training)

    def drop(self, name: str, why: str = "dropped") -> None:
        """End a member's training; it keeps the weights it has.

        One that waits for another never starts. Those that wait for it in turn can't either: they fail.
        """
        self._roster.end(name, "dropped", why)

    def stop(self, name: str, why: str = "stopped") -> None:
        """End a member's training early, as good enough; as for `drop`."""
        self._roster.end(name, "stopped", why)

    # ---- training

    def fit(self, *, callbacks: Sequence[Any] = (), resume: bool = False, quiet: bool | None = None) -> Fleet:
        """Train every member to its end.

        Args:
            callbacks: objects with some of the hooks of `plait.fleet.Callback`.
            resume: go on from the last save in `out`; start if there is none. If that is this object's own
                save, it goes on from where it is itself, as without, and callbacks that were made anew from
                what those of its last fit have to say.
            quiet: no table of progress; None shows one on a terminal.

        Raises:
            InputError: the save is another fleet's, a disk is full, members can't be stacked, …
        """
        self.callbacks, self._router = check_callbacks(callbacks), None
        with torch_threads(self.threads) as threads:
            self.place, self._training = replace(self.place, threads=threads), True
            try:
                with noise_kept(self.place.device), memory_kept():
                    Loop(self, quiet=quiet).run(resume=resume)
            finally:
                self._training = False
        return self

    def refit(self, frame: Any, **fit: Any) -> list[str]:
        """Train again those groups whose rows changed, and new ones; the others keep their weights.

        Groups that the frame has no rows of stay in the fleet with the model that they have.

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

    def outputs(self, data: Any, member: Names | None = None) -> Tensor:
        """What each row's member gives for it, all in one batched pass: `(rows, …)`.

        Args:
            data: rows as array, tensor, list, named columns, or a frame like the one of `from_frame`.
            member: the name of each row's member, or one for all, taken as they are written (1 is `1`); a
                frame's own column if None.

        Raises:
            InputError: a member is not there or has not started, there are not as many names as rows, or the
                rows are not like those that the member learned from.
        """
        return _predict.outputs(self, data, member)

    def predict(self, data: Any, member: Names | None = None) -> NDArray[Any]:
        """Each row's prediction: a class (as in the frame, or its number) or the model's numbers.

        Args and errors as for `outputs`.
        """
        return _predict.predict(self, data, member)

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

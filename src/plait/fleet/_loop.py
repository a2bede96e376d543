"""The loop: a step of every running member, then whatever is due; and going on after a stop."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from plait.errors import InputError
from plait.fleet._adapter import put
from plait.fleet._architecture import signature
from plait.fleet._auto import choose
from plait.fleet._callbacks import kind_of, lasting, tell
from plait.fleet._facts import CallbackFacts, Facts, GroupFacts, Progress
from plait.fleet._fingerprint import fingerprint
from plait.fleet._groups import Group, check_backend, grouped
from plait.fleet._live import Live
from plait.fleet._lock import locked
from plait.fleet._log import JsonLines
from plait.fleet._resume import take_up
from plait.fleet._roster import FleetWarning
from plait.fleet._sequential import Sequential
from plait.fleet._store import Store, best_of, number_of
from plait.fleet._trainee import State, Trainee
from plait.fleet._turn import of_members, turn
from plait.fleet._validate import better, validate

if TYPE_CHECKING:
    from plait.fleet._fleet import Fleet

_LOG = "metrics.jsonl"


class Loop:
    """Runs a fleet to its end.

    Args:
        fleet: it; the loop changes its trainees, groups and history.
        quiet: no table of progress.
    """

    def __init__(self, fleet: Fleet, *, quiet: bool | None) -> None:
        self.fleet, self.roster, self.quiet = fleet, fleet._roster, quiet
        self.store = None if fleet.out is None else Store(fleet.out)
        self.log: JsonLines | None = None
        self.writers: list[Any] = list(fleet.writers)
        self._saved: dict[str, tuple[int, str]] = {}
        self._models: dict[str, nn.Module] = {}
        #: Members whose end has had its consequences.
        self._over: set[str] = set()

    def run(self, *, resume: bool) -> None:
        """Train until no member runs; nobody else trains into the fleet's folder meanwhile."""
        with locked(self.fleet.out):
            self._run(resume)

    def _run(self, resume: bool) -> None:
        fleet = self.fleet
        size = self._begin(resume)
        for trainee in self.roster.running:
            if trainee.step >= trainee.steps:  # an earlier fit was cut off before it could say so
                trainee.status = "finished"
        if self.store is not None:
            self.log = JsonLines(self.store.folder / _LOG, size)
            fleet.history = self.log.records() if size else fleet.history
        ended = [name for name, t in self.roster.trainees.items() if not t.running]
        self._over = set(ended)
        for name in ended:
            self.roster.start_after(name)  # it was dropped before the first round
        if not self.roster.groups:
            self._regroup()
        tell(fleet.callbacks, "on_start", fleet)
        self._settle()
        try:
            with Live(fleet, quiet=self.quiet) as live:
                while self.roster.running:
                    self._round()
                    live.show()
                    if self.store is not None and fleet.save_every and fleet.round % fleet.save_every == 0:
                        self._save()
                        self._settle()
            self._save()
        finally:
            self._close()
        tell(fleet.callbacks, "on_end", fleet)

    # ---- one round

    def _round(self) -> None:
        fleet = self.fleet
        validated: list[dict[str, Any]] = []
        for group in self.roster.groups:
            self._step(group, validated)
        fleet.round += 1
        tell(fleet.callbacks, "on_round", fleet, validated)
        self._settle()

    def _settle(self) -> None:
        """What follows from members' ends, and from those that join; callbacks may end further ones."""
        while ended := [t for t in self.roster.trainees.values() if not self._is_over(t)]:
            for trainee in ended:
                self._over.add(trainee.member.name)
                self._ended(trainee)
        joined = self._joined()
        if joined or any(group.sparse for group in self.roster.groups):
            self._regroup()

    def _is_over(self, trainee: Trainee) -> bool:
        """Whether nothing follows from a member's end, or it has none yet."""
        return trainee.running or trainee.member.name in self._over

    def _joined(self) -> list[Trainee]:
        """Members that have started since the last round; one that the user's backend can't take fails."""
        held = {name for group in self.roster.groups for name in group.names}
        new = [t for t in self.roster.running if t.member.name not in held]
        others = [t for t in self.roster.running if t.member.name in held]
        taken: list[Trainee] = []
        for trainee in new:
            taken += [trainee] if self._takes(trainee, [*others, *taken]) else []
        return taken

    def _takes(self, trainee: Trainee, others: Sequence[Trainee]) -> bool:
        try:
            check_backend([*others, trainee], self.fleet.backend)
            self._know(trainee)
        except Exception as error:
            self.roster.refuse(trainee.member.name, error)
            return False
        return True

    def _know(self, trainee: Trainee) -> None:
        """A member's fingerprint for saves, of what it is before its first step changes what it was given."""
        if self.store is not None:
            fingerprint(trainee)

    def _regroup(self) -> None:
        """New groups of those that run; what backends hold is kept."""
        roster = self.roster
        roster.release(roster.groups)
        for trainee in roster.running:
            self._know(trainee)
        roster.groups = grouped(roster.running, self.fleet.backend, self._choose)

    def _choose(self, alike: Sequence[Trainee]) -> tuple[str, int]:
        """How members that are alike are trained; measured once for each kind."""
        fleet, roster, own = self.fleet, self.roster, signature(alike[0])
        for name, choice in fleet.choices.items():
            if signature(roster.trainees[name]) == own:
                return choice.kind, choice.size
        choice = choose(alike, lambda trainee: roster.state(trainee.member.name), fleet.place)
        fleet.choices[alike[0].member.name] = choice
        return choice.kind, choice.size

    def _step(self, group: Group, validated: list[dict[str, Any]]) -> None:
        steps = turn(group, self.roster, self.fleet.place, self._one_by_one)
        stepped = [
            (trainee, float(steps.loss[index]), float(steps.norm[index]), bool(steps.taken[index]))
            for index, trainee in enumerate(group.trainees)
            if trainee.running and trainee.member.name not in steps.errors
        ]
        for trainee, _, _, taken in stepped:  # before anything of the user's is called, which may raise
            trainee.step += taken
        self._fail("a step failed", steps.errors)
        for trainee, loss, norm, taken in stepped:
            self._account(trainee, loss, norm, taken, validated)

    def _one_by_one(self, group: Group, error: Exception) -> bool:
        """Whether members that can't take a step together go on in the loop: where plait had the choice."""
        fleet = self.fleet
        if fleet.backend != "auto":
            return False
        own = signature(group.trainees[0])
        for name, choice in fleet.choices.items():
            if signature(self.roster.trainees[name]) == own:
                fleet.choices[name] = replace(choice, kind=Sequential.name)
        told = of_members(group.names, "a step failed", error)
        warnings.warn(f"members of one group go on one by one: {told}", FleetWarning, stacklevel=2)
        return True

    def _fail(self, what: str, errors: Mapping[str, Exception]) -> None:
        """Members fail, and the others go on; if none is left, or nothing has been trained yet, all ends."""
        trainees = self.roster.trainees
        left = [name for name, t in trainees.items() if t.status != "failed" and name not in errors]
        if errors and (self.fleet.round == 0 or not (left or self.roster.waiting)):
            if self.fleet.round:
                self._save()
            first = next(iter(errors.values()))
            raise of_members(list(errors), what, first) from first
        for name, error in errors.items():
            told = of_members([name], what, error)
            why = f"{what}: {told}" if told is error else told.what
            self.roster.end(name, "failed", why)
            self._write({"member": name, "step": trainees[name].step + 1, "failed": why})

    def _account(
        self, trainee: Trainee, loss: float, norm: float, taken: bool, validated: list[dict[str, Any]]
    ) -> None:
        """Write a step down, validate if it is time, and see whether the member is done."""
        fleet, member = self.fleet, trainee.member
        step = trainee.step if taken else trainee.step + 1
        lr = member.learning_rate(step - 1, trainee.steps)
        record = {"member": member.name, "step": step, "loss": loss, "lr": lr, "norm": norm}
        if not taken:
            part = "loss" if not math.isfinite(loss) else "gradient"
            why = f"its {part} was not finite at step {step}; it keeps the weights before that"
            self.roster.end(member.name, "failed", why)
            self._write(record | {"failed": why})
            return
        last = trainee.step >= trainee.steps
        if trainee.step % fleet.log_every == 0 or last:
            self._write(record)
        tell(fleet.callbacks, "on_step", fleet, record)
        due = member.evaluate_every and trainee.step % member.evaluate_every == 0
        if (due or last) and "validation" in trainee.task.splits:
            validated += self._validated(trainee)
        if last and trainee.running:
            trainee.status = "finished"

    def _validated(self, trainee: Trainee) -> list[dict[str, Any]]:
        """A member's validation as a record; none if it fails, and the member with it."""
        fleet, member, metric = self.fleet, trainee.member, trainee.task.metric
        where = f"member `{member.name}`, task `{trainee.task.name}`"
        try:
            value = validate(self._network(trainee), trainee.task, where=where)
        except Exception as error:
            self._fail("its validation failed", {member.name: error})
            return []
        if better(value, trainee.best, metric):
            trainee.best, trainee.waited = value, 0
            if member.keep == "best":
                self.roster.kept[member.name] = fleet.state(member.name)
        else:
            trainee.waited += 1
        if member.patience is not None and trainee.waited > member.patience:
            self.roster.end(member.name, "stopped", f"no better validation in {trainee.waited}")
        record = {"member": member.name, "step": trainee.step, "metric": metric.name, "value": value}
        self._write(record)
        tell(fleet.callbacks, "on_evaluate", fleet, record)
        return [record]

    def _network(self, trainee: Trainee) -> nn.Module:
        """The member as it is; PEFT's model of an adapter is kept, as making it takes long."""
        name = trainee.member.name
        if trainee.member.lora is None:
            return self.fleet[name]
        if name not in self._models:
            self._models[name] = self.fleet[name]
        return put(self._models[name], self.fleet.state(name).parameters)

    def _ended(self, trainee: Trainee) -> None:
        fleet, name = self.fleet, trainee.member.name
        self._models.pop(name, None)
        if trainee.member.keep == "best" and name in self.roster.kept:
            self.roster.states[name] = self.roster.kept.pop(name)
        if trainee.status == "failed":
            warnings.warn(f"member `{name}` failed: {trainee.why}", FleetWarning, stacklevel=2)
        tell(fleet.callbacks, "on_finish", fleet, name)
        self.roster.start_after(name)

    def _write(self, record: Mapping[str, Any]) -> None:
        self.fleet.history.append(dict(record))
        if self.log is not None:
            self.log.write(record)
        for writer in self.writers:
            self._tell(writer, lambda writer=writer: writer.write(record))

    def _tell(self, writer: Any, call: Callable[[], object]) -> None:
        """Call a writer; one that raises is told of once, and left alone from then on: models matter more."""
        try:
            call()
        except Exception as error:
            self.writers = [other for other in self.writers if other is not writer]
            what = f"{type(error).__name__}: {error}"
            told = f"the writer {type(writer).__name__} failed, training goes on without it: {what}"
            warnings.warn(told, FleetWarning, stacklevel=2)

    # ---- saving and going on

    def _save(self) -> None:
        fleet = self.fleet
        if self.store is None or self.log is None:
            return
        states: dict[str, State | None] = {}
        for name, trainee in self.roster.trainees.items():
            at = (trainee.step, trainee.status)
            states[name] = None if self._saved.get(name) == at else fleet.state(name)
            self._saved[name] = at
        states |= {best_of(name): state for name, state in self.roster.kept.items()}
        place = self.store.write(fleet.round, states, self._facts(self.log.size()))
        fleet.saved_round = fleet.round
        tell(fleet.callbacks, "on_save", fleet, place)

    def _facts(self, log: int) -> Facts:
        fleet, roster = self.fleet, self.roster
        return Facts(
            round=fleet.round,
            members={
                name: Progress(t.step, t.status, t.why, t.best, t.waited, fingerprint(t))  # type: ignore[arg-type]
                for name, t in roster.trainees.items()
            },
            kept=list(roster.kept),
            groups=[GroupFacts(group.kind, group.names) for group in roster.groups],  # type: ignore[arg-type]
            choices=fleet.choices,
            callbacks=[CallbackFacts(kind_of(c), c.facts()) for c in lasting(fleet.callbacks)],
            log=log,
            never=roster.never,  # type: ignore[arg-type]
        )

    def _begin(self, resume: bool) -> int:
        """Take up the last save if there is one and it is wanted; how long the log was then."""
        newest = None if self.store is None else self.store.newest()
        if self.store is None or newest is None:
            if resume and self.store is None:
                raise InputError("there is nothing to resume", hint="give the fleet's folder: out=")
            return 0
        if not resume and self.fleet.saved_round == number_of(newest):
            return self.store.facts(newest).log  # this very fleet's: members were added or made anew since
        if not resume:
            hint = "go on with fit(resume=True), or give another folder"
            raise InputError("a fleet was saved here", where=str(self.store.folder), hint=hint)
        facts = take_up(self.fleet, self.store, newest)
        self._saved = {name: (progress.step, progress.status) for name, progress in facts.members.items()}
        if any(trainee.member.name not in facts.members for trainee in self.roster.running):
            self._regroup()
        return facts.log

    def _close(self) -> None:
        if self.log is not None:
            self.log.close()
        for writer in self.writers:
            self._tell(writer, writer.close)

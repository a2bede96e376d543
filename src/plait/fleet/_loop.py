"""The loop: a step of every running member, then whatever is due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from plait.fleet._aftermath import Aftermath
from plait.fleet._architecture import signature
from plait.fleet._auto import choose
from plait.fleet._backend import Steps
from plait.fleet._callbacks import tell
from plait.fleet._groups import Group, check_backend, grouped
from plait.fleet._live import Live
from plait.fleet._lock import locked
from plait.fleet._records import Records
from plait.fleet._saving import Saving
from plait.fleet._sequential import Sequential
from plait.fleet._signals import through_plait, undisturbed, until_counted
from plait.fleet._trainee import Trainee
from plait.fleet._turn import of_members, turn
from plait.fleet._warnings import warn

if TYPE_CHECKING:
    from plait.fleet._fleet import Fleet


class Loop:
    """Runs a fleet to its end.

    Args:
        fleet: it; the loop changes its trainees, groups and history.
        quiet: no table of progress.
    """

    def __init__(self, fleet: Fleet, *, quiet: bool | None) -> None:
        self.fleet, self.roster, self.quiet = fleet, fleet._roster, quiet
        self.saving = Saving(fleet)

    def run(self, *, resume: bool) -> None:
        """Train until no member runs; nobody else trains into the fleet's folder meanwhile."""
        with locked(self.fleet.out), through_plait():
            records = self.saving.begin(resume)
            try:
                self._train(records, Aftermath(self.fleet, records, self.saving))
            finally:
                records.close()
            tell(self.fleet.callbacks, "on_end", self.fleet)

    def _train(self, records: Records, aftermath: Aftermath) -> None:
        fleet, due = self.fleet, self.fleet._due
        due.keep(self.roster.groups, self.roster.trainees.values())
        self._pass_over()
        if not self.roster.groups or (self.saving.taken_up and self._out_of_groups()):
            self._regroup()
        tell(fleet.callbacks, "on_start", fleet)
        if not due.begun:
            aftermath.drain()
            self._settle(aftermath)
        with Live(fleet, quiet=self.quiet) as live:
            while self.roster.running or due.begun:
                self._round(aftermath)
                live.show()
                if fleet.out is not None and fleet.save_every and fleet.round % fleet.save_every == 0:
                    self.saving.save(records)
                    self._settle(aftermath)
        self.saving.save(records)

    def _pass_over(self) -> None:
        """Nothing follows from the end of a member that was dropped before its first round."""
        held = {name for group in self.roster.groups for name in group.names}
        for trainee in self.roster.ended:
            name = trainee.member.name
            if trainee.status != "failed" and not trainee.step and name not in held:
                self.roster.over.add(name)
                self.roster.start_after(name)

    # ---- one round

    def _round(self, aftermath: Aftermath) -> None:
        """A round, or the rest of one that was cut off."""
        fleet, due = self.fleet, self.fleet._due
        if not due.begun:
            due.begin(self.roster.groups)
        aftermath.drain()
        while due.groups:
            self._step(due.groups[0])
            aftermath.drain()
        if due.begun:
            with undisturbed():
                fleet.round += 1
                due.close()
                validated, due.validated = due.validated, []
                aftermath.add_told("on_round", fleet, validated)
            aftermath.drain()
        self._settle(aftermath)

    def _step(self, group: Group) -> None:
        """A group's step, and its count: together, whatever signal comes."""
        if not any(trainee.running for trainee in group.trainees):
            self.fleet._due.groups.pop(0)
            return
        with until_counted():
            steps = turn(group, self.roster, self.fleet.place, self._one_by_one)
            with undisturbed():
                self._count(group, steps)

    def _count(self, group: Group, steps: Steps) -> None:
        due = self.fleet._due
        due.groups.pop(0)
        if steps.errors:
            due.parts.append(partial(Aftermath.fail, errors=steps.errors))
        for index, trainee in enumerate(group.trainees):
            if trainee.running and trainee.member.name not in steps.errors:
                taken = bool(steps.taken[index])
                trainee.step += taken
                loss, norm = float(steps.loss[index]), float(steps.norm[index])
                due.parts.append(
                    partial(Aftermath.account, trainee=trainee, loss=loss, norm=norm, taken=taken)
                )

    def _settle(self, aftermath: Aftermath) -> None:
        """What follows from members' ends, and from those that join; callbacks may end further ones."""
        while ended := self.roster.ended:
            for trainee in ended:
                aftermath.add_end(trainee)
            aftermath.drain()
        joined = self._joined()
        if joined or any(group.sparse for group in self.roster.groups):
            self._regroup()

    def _joined(self) -> list[Trainee]:
        """Members that have started since the last round; one that the user's backend can't take fails."""
        new = self._out_of_groups()
        names = {trainee.member.name for trainee in new}
        others = [trainee for trainee in self.roster.running if trainee.member.name not in names]
        taken: list[Trainee] = []
        for trainee in new:
            taken += [trainee] if self._takes(trainee, [*others, *taken]) else []
        return taken

    def _out_of_groups(self) -> list[Trainee]:
        held = {name for group in self.roster.groups for name in group.names}
        return [trainee for trainee in self.roster.running if trainee.member.name not in held]

    def _takes(self, trainee: Trainee, others: Sequence[Trainee]) -> bool:
        try:
            check_backend([*others, trainee], self.fleet.backend)
            self.saving.know(trainee)
        except Exception as error:
            self.roster.refuse(trainee.member.name, error)
            return False
        return True

    def _regroup(self) -> None:
        """New groups of those that run; what backends hold is kept."""
        roster = self.roster
        roster.release(roster.groups)
        for trainee in roster.running:
            self.saving.know(trainee)
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
        warn(f"members of one group go on one by one: {told}")
        return True

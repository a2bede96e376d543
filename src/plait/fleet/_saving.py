"""Saving a fleet, and going on from its last save."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plait.errors import InputError
from plait.fleet._callbacks import kind_of, lasting, tell
from plait.fleet._facts import CallbackFacts, Facts, GroupFacts, Progress
from plait.fleet._fingerprint import fingerprint
from plait.fleet._records import Records
from plait.fleet._resume import go_on, take_up
from plait.fleet._store import Store, best_of
from plait.fleet._trainee import State, Trainee

if TYPE_CHECKING:
    from plait.fleet._fleet import Fleet


class Saving:
    """A fleet's saves in its folder; nothing if it has none.

    Args:
        fleet: it.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.roster = fleet, fleet._roster
        self.store = None if fleet.out is None else Store(fleet.out, fleet._own)
        #: Whether the fleet is what a save says, and not what it was before.
        self.taken_up = False
        #: Each member's step and status at the last save.
        self._saved: dict[str, tuple[int, str]] = {}

    def know(self, trainee: Trainee) -> None:
        """A member's fingerprint for saves, of what it is before its first step changes what it was given."""
        if self.store is not None:
            fingerprint(trainee)

    def begin(self, resume: bool) -> Records:
        """The fleet's records as it goes on: from where it is, or from the last save if that is another's.

        Raises:
            InputError: there is no folder to resume from, or another fleet's save lies there.
        """
        fleet, store = self.fleet, self.store
        newest = None if store is None else store.newest()
        if resume and store is None:
            raise InputError("there is nothing to resume", hint="give the fleet's folder: out=")
        if store is None or newest is None or store.is_own(newest):
            if resume:
                go_on(fleet)
            records = Records(fleet, fleet.out, None)
        elif resume:
            facts, records = take_up(fleet, store, newest)
            self._saved = {name: (progress.step, progress.status) for name, progress in facts.members.items()}
            self.taken_up = True
        else:
            hint = "go on with fit(resume=True), or give another folder"
            raise InputError("a fleet was saved here", where=str(store.folder), hint=hint)
        fleet._lasting = lasting(fleet.callbacks)
        return records

    def save(self, records: Records) -> None:
        """Write a save; members that have not moved since the last one are linked."""
        fleet = self.fleet
        if self.store is None:
            return
        states: dict[str, State | None] = {}
        for name, trainee in self.roster.trainees.items():
            at = (trainee.step, trainee.status)
            states[name] = None if self._saved.get(name) == at else fleet.state(name)
            self._saved[name] = at
        states |= {best_of(name): state for name, state in self.roster.kept.items()}
        place = self.store.write(fleet.round, states, self._facts(records.size()))
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

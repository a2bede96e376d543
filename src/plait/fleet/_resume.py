"""Going on from a save, which must be this fleet's: then all is as it was there; or from where a fleet is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from plait.errors import InputError
from plait.fleet._auto import Choice
from plait.fleet._callbacks import kind_of, lasting
from plait.fleet._due import Due
from plait.fleet._facts import Facts
from plait.fleet._fingerprint import fingerprint
from plait.fleet._groups import families, regrouped
from plait.fleet._records import Records
from plait.fleet._signals import undisturbed
from plait.fleet._store import Store, best_of
from plait.fleet._trainee import State

if TYPE_CHECKING:
    from plait.fleet._fleet import Fleet


def take_up(fleet: Fleet, store: Store, newest: Path) -> tuple[Facts, Records]:
    """Give a fleet what its last save holds.

    Returns:
        what the save says, and the records as they were then.

    Raises:
        InputError: it is another fleet's, or damaged; this one is as it was then.
    """
    facts, roster = store.facts(newest), fleet._roster
    with roster.whole():
        _check_members(fleet, facts)
        if any(progress.status == "running" for progress in facts.members.values()):
            _check_backend(fleet, facts)
            _check_callbacks(fleet, "saved", [held.kind for held in facts.callbacks])
        states = {name: store.state(newest, name, roster.state(name)) for name in facts.members}
        kept = {name: store.state(newest, best_of(name), roster.state(name)) for name in facts.kept}
        for callback, held in zip(lasting(fleet.callbacks), facts.callbacks, strict=False):
            if kind_of(callback) == held.kind:
                callback.restore(held.facts)
        records = Records(fleet, fleet.out, facts.log)
    with undisturbed():
        _put(fleet, facts, states, kept)
        fleet.saved_round = facts.round
        store.take(newest)
        fleet._lasting = lasting(fleet.callbacks)
    return facts, records


def _put(fleet: Fleet, facts: Facts, states: Mapping[str, State], kept: Mapping[str, State]) -> None:
    """A fleet becomes what a save says."""
    roster = fleet._roster
    for name, progress in facts.members.items():
        roster.restore(name, states[name], progress)
    roster.over = {n for n, p in facts.members.items() if p.status != "running"} - kept.keys()
    roster.kept, fleet.choices, fleet.round = dict(kept), dict(facts.choices), facts.round
    roster.groups = regrouped([(group.kind, group.members) for group in facts.groups], roster.trainees)
    if fleet.backend == "auto" and not fleet.choices:  # the user chose the backend; `auto` keeps to that
        for group in roster.groups:
            chosen = Choice(group.kind, len(group.trainees), {})
            fleet.choices |= {alike[0].member.name: chosen for alike in families(group.trainees)}
    fleet._due = Due()


def go_on(fleet: Fleet) -> None:
    """Callbacks that were made anew know what those of a fleet's last fit had to say, and were told.

    Raises:
        InputError: they are others than those, and there is something left to train.
    """
    before, own = fleet._lasting, lasting(fleet.callbacks)
    if _has_trained(fleet) and fleet._roster.running:
        _check_callbacks(fleet, "trained", [kind_of(callback) for callback in before])
    for old, new in zip(before, own, strict=False):
        if kind_of(old) == kind_of(new) and not any(new is other for other in before):
            new.restore(json.loads(json.dumps(old.facts())))  # as a save would give them
            for part in fleet._due.parts:
                told = part.keywords.get("told", [])
                told += [new] if any(old is other for other in told) else []


def _has_trained(fleet: Fleet) -> bool:
    return bool(fleet.round) or fleet._due.begun


def _check_members(fleet: Fleet, facts: Facts) -> None:
    """Nothing if the save is this fleet's; members start, or don't, as they did there.

    Those that never started may be missing: a callback may have added them.
    """
    roster, where = fleet._roster, str(fleet.out)
    hint = "resume with the members it was saved with, or give another folder"
    if lost := [f"`{name}`" for name in facts.members if name not in roster.names]:
        what = f"the save has {'a member' if len(lost) == 1 else 'members'} {', '.join(lost)}"
        every = "list every member in the new Fleet, those that callbacks added too; or give another folder"
        raise InputError(f"{what}, this fleet has none", where=where, hint=every)
    more = [f"`{name}`" for name in roster.trainees if name not in facts.members]
    if more and _has_trained(fleet):
        what = f"another fleet has trained here, and its save has no member {', '.join(more)}"
        raise InputError(what, where=where, hint="make the fleet anew, then fit(resume=True)")
    for name, progress in facts.members.items():
        if name in roster.waiting:
            roster.start(name)
        if name in roster.never or fingerprint(roster.trainees[name]) != progress.fingerprint:
            what = f"member `{name}` was saved with other settings, data or start"
            raise InputError(what, where=where, hint=hint)
    roster.keep_out(facts.never)


def _check_backend(fleet: Fleet, facts: Facts) -> None:
    """Nothing if members train as they did, or as `auto` may have it."""
    for group in facts.groups:
        runs = any(facts.members[name].status == "running" for name in group.members)
        if runs and fleet.backend not in ("auto", group.kind):
            what = f"its members were trained by the backend `{group.kind}`, not by `{fleet.backend}`"
            hint = 'give backend="auto" to go on as it was saved, or another folder'
            raise InputError(what, where=str(fleet.out), hint=hint)


def _check_callbacks(fleet: Fleet, was: str, saved: list[str]) -> None:
    """Nothing if those callbacks that were saved are there again, in their order; more may follow."""
    own = [kind_of(c) for c in lasting(fleet.callbacks)]
    if own[: len(saved)] != saved:
        told = ", ".join(f"`{kind}`" for kind in saved)
        mine = ", ".join(f"`{kind}`" for kind in own) or "none"
        what = f"it was {was} with the callbacks {told}, and goes on with {mine}"
        hint = "give fit() callbacks of the same classes, in the same order"
        raise InputError(what, where=str(fleet.out), hint=hint)

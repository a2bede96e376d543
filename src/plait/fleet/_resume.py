"""Going on from a save: it must be this fleet's, and then all is as it was there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from plait.errors import InputError
from plait.fleet._auto import Choice
from plait.fleet._callbacks import kind_of, lasting
from plait.fleet._facts import Facts
from plait.fleet._fingerprint import fingerprint
from plait.fleet._groups import families, regrouped
from plait.fleet._store import Store, best_of

if TYPE_CHECKING:
    from plait.fleet._fleet import Fleet


def take_up(fleet: Fleet, store: Store, newest: Path) -> Facts:
    """Give a fleet what its last save holds.

    Returns:
        what the save says.

    Raises:
        InputError: it is another fleet's, or damaged; this one is as it was then.
    """
    facts, roster = store.facts(newest), fleet._roster
    _check_members(fleet, facts)
    goes_on = any(progress.status == "running" for progress in facts.members.values())
    if goes_on:
        _check_backend(fleet, facts)
        _check_callbacks(fleet, facts)
    states = {name: store.state(newest, name, roster.state(name)) for name in facts.members}
    kept = {name: store.state(newest, best_of(name), roster.state(name)) for name in facts.kept}
    for name, progress in facts.members.items():
        roster.restore(name, states[name], progress)
    roster.over = {n for n, p in facts.members.items() if p.status != "running"} - kept.keys()
    roster.kept, fleet.choices, fleet.round = kept, dict(facts.choices), facts.round
    roster.groups = regrouped([(group.kind, group.members) for group in facts.groups], roster.trainees)
    if fleet.backend == "auto" and not fleet.choices:  # the user chose the backend; `auto` keeps to that
        for group in roster.groups:
            chosen = Choice(group.kind, len(group.trainees), {})
            fleet.choices |= {alike[0].member.name: chosen for alike in families(group.trainees)}
    for callback, held in zip(lasting(fleet.callbacks), facts.callbacks, strict=False):
        if kind_of(callback) == held.kind:
            callback.restore(held.facts)
    return facts


def _check_members(fleet: Fleet, facts: Facts) -> None:
    """Nothing if the save is this fleet's; members start, or don't, as they did there.

    Those that never started may be missing: a callback may have added them.
    """
    roster, where = fleet._roster, str(fleet.out)
    hint = "resume with the members it was saved with, or give another folder"
    for name, progress in facts.members.items():
        if name not in roster.names:
            raise InputError(f"the save has a member `{name}`, this fleet has none", where=where, hint=hint)
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


def _check_callbacks(fleet: Fleet, facts: Facts) -> None:
    """Nothing if those callbacks that were saved are there again, in their order; more may follow."""
    saved, own = [held.kind for held in facts.callbacks], [kind_of(c) for c in lasting(fleet.callbacks)]
    if own[: len(saved)] != saved:
        told = ", ".join(f"`{kind}`" for kind in saved)
        mine = ", ".join(f"`{kind}`" for kind in own) or "none"
        what = f"it was saved with the callbacks {told}, and goes on with {mine}"
        hint = "give fit() callbacks of the same classes, in the same order"
        raise InputError(what, where=str(fleet.out), hint=hint)

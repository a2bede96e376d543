"""What a save says of its fleet beside weights: `fleet.json`, and the check that a file says that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from plait.errors import InputError
from plait.fleet._auto import Choice

Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Progress:
    """How far a member is (as its `Trainee` has it), and what it was made of."""

    step: Count
    status: Literal["running", "finished", "stopped", "dropped", "failed"]
    why: str
    best: float | None
    waited: Count
    fingerprint: str


@dataclass(frozen=True)
class GroupFacts:
    """Members that take their steps together."""

    kind: Literal["sequential", "stacked", "adapters"]
    members: list[str]


@dataclass(frozen=True)
class CallbackFacts:
    """A callback that has something to say: its class, and what it said of itself."""

    kind: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class Facts:
    """A fleet between two rounds.

    Args:
        round: how many there were.
        members: those that have started.
        kept: those of which the weights of the best validation are in the save as well.
        groups: the same members in the same stacks give the same bits.
        choices: how backends were chosen.
        callbacks: those that go on from what they said of themselves, in order.
        log: how long `metrics.jsonl` was, in bytes.
        never: those that ended before they could start: how, and why.
    """

    round: Count
    members: dict[str, Progress]
    kept: list[str]
    groups: list[GroupFacts]
    choices: dict[str, Choice]
    callbacks: list[CallbackFacts]
    log: Count
    never: dict[str, tuple[Literal["stopped", "dropped", "failed"], str]] = field(default_factory=dict)


def written(facts: Facts) -> str:
    """Facts as JSON."""
    return json.dumps(asdict(facts), indent=1)


def read(path: Path) -> Facts:
    """The facts of a file.

    Raises:
        InputError: it can't be read, or says something else.
    """
    try:
        facts = TypeAdapter(Facts).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first: Mapping[str, Any] = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _unfit(path, f"{f'`{place}`: ' if place else ''}{first['msg']}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"it can't be read: {error}", where=str(path)) from error
    named = {*facts.kept, *facts.choices, *(name for group in facts.groups for name in group.members)}
    if lost := sorted(named - facts.members.keys()):
        raise _unfit(path, f"it has no member `{lost[0]}`, which it speaks of")
    return facts


def _unfit(path: Path, why: str) -> InputError:
    hint = "the file was changed or is another program's; start in another folder"
    return InputError(f"it does not tell of a fleet: {why}", where=str(path), hint=hint)

"""Steps of a study and their cache: a step whose inputs and settings are as before is not run again."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from blake3 import blake3

from plait import __version__
from plait.errors import InputError, PlaitError, noted, raise_all
from plait.study._folder import STEPS
from plait.study._spent import forget, spending
from plait.study._whole import as_number, write_json

#: Counts up when what steps write changes, so that older results are made anew.
_FORMAT = 3
_DONE = "step.json"
#: A step's folder is called so while it works.
_PARTIAL = ".partial"
#: Characters of a step's name that its folder is called by; systems take no names of any length.
_LONGEST = 80

#: What to do about a step that failed.
_KEPT = "all steps that don't need it are kept, no report is written; `--resume` goes on from here"

#: Writes a step's results into a folder; sees the folders of the steps that it needs.
Work = Callable[[Path, Mapping[str, Path]], None]


@dataclass(frozen=True)
class Step:
    """One step.

    Args:
        name: in the study, and in messages.
        facts: all that its results depend on besides the steps it needs; plain values.
        work: does it.
        needs: names of steps.
    """

    name: str
    facts: Mapping[str, Any]
    work: Work
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Done:
    """What became of a step.

    Args:
        name: of the step.
        digest: of its facts and of the steps it needs.
        folder: where its results are, relative to the study's.
        seconds: it took, in all its pieces if it was killed and gone on with.
        peak_mb: the most memory that the process held meanwhile, in 10⁶ bytes; NaN where the system does not
            tell.
        cached: whether it had been done before.
    """

    name: str
    digest: str
    folder: str
    seconds: float
    peak_mb: float
    cached: bool = field(default=False, compare=False)


def run_steps(
    steps: Sequence[Step],
    out: Path,
    *,
    resume: bool,
    told: Callable[[Done], None] | None = None,
    hint: str = _KEPT,
) -> dict[str, Done]:
    """Run steps in their order, but for those that are done.

    Args:
        steps: each after those that it needs.
        out: the study's folder.
        resume: whether what a killed step left is gone on with; it is made anew otherwise.
        told: of each step when it is done.
        hint: for messages, what to do about a step that failed.

    Raises:
        InputError: steps failed; all that need none of these are done, and kept.
    """
    done: dict[str, Done] = {}
    failed: list[InputError] = []
    slugs = Counter(_slug(step.name) for step in steps)
    for step in steps:
        if any(name not in done for name in step.needs):
            continue  # what it needs has failed
        digest = _digest(step, done)
        place = out / STEPS / f"{_slug(step.name)}-{digest[:12]}"
        found = _finished(place, out)
        if slugs[_slug(step.name)] == 1:
            _remove_others(place)
        if found is None:
            needs = {name: out / done[name].folder for name in step.needs}
            with noted(failed):
                found = _run(step, digest, place, out, needs, resume, hint)
        if found is None:
            continue
        done[step.name] = found
        if told is not None:
            told(found)
    raise_all(failed)
    return done


def _run(
    step: Step, digest: str, place: Path, out: Path, needs: Mapping[str, Path], resume: bool, hint: str
) -> Done:
    partial = place.with_name(place.name + _PARTIAL)
    try:
        if partial.exists() and not resume:
            shutil.rmtree(partial)
        partial.mkdir(parents=True, exist_ok=True)
        with spending(partial) as spent:
            step.work(partial, needs)
            took = spent()
        found = Done(step.name, digest, str(place.relative_to(out)), took.seconds, took.peak_mb)
        write_json({k: v for k, v in asdict(found).items() if k != "cached"}, partial / _DONE)
        forget(partial)
        partial.rename(place)
    except (PlaitError, OSError) as error:
        raise InputError(f"step `{step.name}` failed: {error}", where=str(out), hint=hint) from error
    return found


def _remove_others(place: Path) -> None:
    """Remove what a killed run left of a step whose inputs or settings were others: none goes on with it."""
    name = place.name.rpartition("-")[0]
    left = re.compile(re.escape(name) + r"-[0-9a-f]{12}" + re.escape(_PARTIAL))
    for other in place.parent.iterdir() if place.parent.is_dir() else ():
        if left.fullmatch(other.name) and other.name != place.name + _PARTIAL:
            shutil.rmtree(other, ignore_errors=True)


def _finished(place: Path, out: Path) -> Done | None:
    """A step that was done before."""
    try:
        found = json.loads((place / _DONE).read_text(encoding="utf-8"))
        found |= {"folder": str(place.relative_to(out)), "peak_mb": as_number(found["peak_mb"])}
        return Done(**found, cached=True)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        hint = "remove this folder, and the step is done anew"
        raise InputError(f"it is no finished step: {error}", where=str(place), hint=hint) from error


def _digest(step: Step, done: Mapping[str, Done]) -> str:
    facts = {
        "format": _FORMAT,
        "plait": __version__,
        "name": step.name,
        "facts": dict(step.facts),
        "needs": {name: done[name].digest for name in step.needs},
    }
    return blake3(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def within_step(folder: Path) -> str:
    """A folder that a step works in, told the same wherever the study is: step, digest, and place in it."""
    steps = [part for part in (folder, *folder.parents) if part.name.endswith(_PARTIAL)]
    return str(folder.relative_to(steps[-1].parent)) if steps else str(folder.absolute())


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9@.-]+", "-", name).strip("-.")[:_LONGEST] or "step"

"""The folder that a run writes: where it is, whether it may be written, and whether it is up to date."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from plait.checkpoint import is_path, parse_reference, read_json
from plait.engine._limits import RunOptions
from plait.engine._lock import work_folder
from plait.engine._plan import Plan
from plait.engine._verify import LARGEST_PROVENANCE
from plait.errors import InputError, size


def find_target(out: str | os.PathLike[str]) -> Path:
    """The folder that is meant, with links followed: renaming a link would put the result elsewhere.

    Raises:
        InputError: it can't be a target.
    """
    try:
        path = Path(os.path.realpath(out))
        there, link = path.exists(), path.is_symlink()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"this can't be the output: {reason}", where=os.fspath(out)) from error
    if link and not there:
        raise InputError("this link leads nowhere", where=str(out), hint="name a folder")
    if there and not path.is_dir():
        raise InputError("the output is a file", where=str(out), hint="name a folder")
    here = Path.cwd()
    if path == here or path in here.parents:
        raise InputError(
            "the output is the folder that you are in, or one around it, which can't be renamed into place",
            where=str(out),
            hint="name a folder in it",
        )
    if os.path.ismount(path):
        raise InputError(
            "a file system is mounted here, so nothing can be renamed into its place",
            where=str(out),
            hint="name a folder in it",
        )
    return path


#: What tells that a folder is a model's.
_MODEL_SIGNS = ("plait.json", "*config.json", "model_index.json", "*.safetensors", "*.bin", "*.gguf")


def is_filled(target: Path) -> bool:
    """Whether something lies in the target."""
    return target.is_dir() and any(target.iterdir())


def check_target(plan: Plan, target: Path, options: RunOptions) -> None:
    """Refuse a target before anything is written.

    Raises:
        InputError: it is an input, holds something (that is no model), may not be written, or there is too
            little space.
    """
    for name, place in _inputs(plan):
        if target == place or target in place.parents:
            raise InputError("the output is one of the inputs", where=name, hint="choose another output")
        if place in target.parents:
            raise InputError(
                "the output lies in one of the inputs, whose files it would become part of",
                where=name,
                hint="choose a folder outside of it",
            )
    if is_filled(target) and not options.overwrite:
        raise InputError(
            "the output folder is not empty", where=str(target), hint="choose another, or add --overwrite"
        )
    if is_filled(target) and not any(next(target.glob(sign), None) for sign in _MODEL_SIGNS):
        raise InputError(
            f"the output folder holds no model (`{next(target.iterdir()).name}`), and would be deleted",
            where=str(target),
            hint="--overwrite replaces models; choose another folder, or empty this one",
        )
    parent = target.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise InputError("this is no folder", where=str(parent))
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError("this folder can't be written to", where=str(parent))
    free = shutil.disk_usage(parent).free
    held = _allocated(work_folder(target)) if options.resume else 0
    needed = _needed(plan)
    if needed > free + held:
        what = f"the output takes {size(needed)}, and {size(free)} are free"
        raise InputError(what, where=str(parent), hint="make room, or choose another disk")


def _needed(plan: Plan) -> int:
    files = sum(sidecar.path.stat().st_size for sidecar in plan.template.sidecars if sidecar.path.exists())
    return plan.bytes_written + files + sum(_needed(stage.plan) for stage in plan.stages)


def _inputs(plan: Plan) -> Iterator[tuple[str, Path]]:
    """Where inputs lie on this disk: their folders or files, their adapters', and those of nested recipes."""
    for ref, checkpoint in plan.opened.items():
        if checkpoint.folder is not None:
            yield ref.text, checkpoint.folder.resolve()
        if ref.live is None and ref.nested is None:
            named = parse_reference(ref.text)
            for part in (named.model, named.adapter):
                if part is not None and is_path(part.name):
                    yield ref.text, Path(part.name).expanduser().resolve()
    for stage in plan.stages:
        yield from _inputs(stage.plan)


def _allocated(folder: Path) -> int:
    """Bytes that files take on the disk: weight files have their full size before they are filled."""
    if not folder.exists():
        return 0
    found = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(min(s.st_size, getattr(s, "st_blocks", s.st_size) * 512) for s in found)


def is_up_to_date(plan: Plan, target: Path) -> bool:
    """Whether the target was made by this plan and its files are there, in their sizes.

    What is in them is not read; `plait verify` does that. A function's code does not say what it holds, so
    a target that one made is never taken for up to date.
    """
    if not isinstance(plan.recipe.method, str | tuple) and plan.recipe.code is None:
        return False
    try:
        known = read_json(target / "plait.json", largest=LARGEST_PROVENANCE)
    except InputError:
        return False
    if known.get("plan") != plan.digest:
        return False
    sizes: Mapping[str, Any] = {shard.name: shard.size for shard in plan.shards}
    listed = known.get("files")
    others = listed if isinstance(listed, dict) else {}
    return all(_size(target / name) == size for name, size in sizes.items()) and all(
        _size(target / name) is not None for name in others
    )


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None

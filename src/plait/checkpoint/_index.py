"""Sharded weights with an index: which tensor lies in which file, checked against the files themselves."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

from plait.checkpoint._json import read_json, some
from plait.checkpoint._weights import WeightFile, open_weights
from plait.errors import InputError, raise_all


def open_index(folder: Path, index: Path, siblings: Iterable[str]) -> dict[str, WeightFile]:
    """Open every shard that an index names.

    Args:
        folder: where the shards lie.
        index: the `*.index.json`.
        siblings: files beside it that look like its shards; one that it does not name is an error,
            as its tensors would vanish.

    Returns:
        Shard name → opened shard, sorted by name.

    Raises:
        InputError: the index or a shard is at fault; all problems at once.
    """
    named = _read_index(index)
    problems = [p for shard in named if (p := _escape(folder, index, shard))]
    raise_all(problems)
    files: dict[str, WeightFile] = {}
    for shard in sorted(named):
        path = folder / shard
        if not path.exists():
            problems.append(
                InputError(f"shard `{shard}` is missing; `{index.name}` names it", where=str(folder))
            )
            continue
        try:
            files[shard] = open_weights(path)
        except InputError as error:
            problems.append(error)
    problems += _compare(index, named, files)
    totals = {shard[-17:] for shard in named}
    unnamed = [name for name in siblings if name not in named and name[-17:] in totals]
    if unnamed:
        problems.append(InputError(f"the index does not name the shards {some(unnamed)}", where=str(index)))
    raise_all(problems)
    return files


def _read_index(index: Path) -> dict[str, list[str]]:
    """Shard → the tensors that the index puts there."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) and v for v in weight_map.values()):
        raise InputError("its `weight_map` is not a mapping of tensors to file names", where=str(index))
    named: defaultdict[str, list[str]] = defaultdict(list)
    for tensor, shard in weight_map.items():
        named[shard].append(tensor)
    return named


def _escape(folder: Path, index: Path, shard: str) -> InputError | None:
    """A problem if a shard's name leads out of the folder, on any operating system."""
    parts = PurePosixPath(shard).parts + PureWindowsPath(shard).parts
    absolute = PurePosixPath(shard).is_absolute() or PureWindowsPath(shard).anchor
    if absolute or ".." in parts or "\0" in shard:
        return InputError(f"the shard {shard!r} lies outside of the folder", where=str(index))
    if not re.search(r"\.(safetensors|bin|pt|pth|ckpt)$", shard):
        return InputError(f"the shard {shard!r} is no weight file", where=str(index))
    if (folder / shard).is_dir():
        return InputError(f"the shard {shard!r} is a folder", where=str(index))
    return None


def _compare(index: Path, named: dict[str, list[str]], files: dict[str, WeightFile]) -> list[InputError]:
    """Where the index and the shards disagree."""
    findings: list[str] = []
    homes: defaultdict[str, list[str]] = defaultdict(list)
    listed = {name for names in named.values() for name in names}
    for shard, file in files.items():
        for name in file.tensors:
            homes[name].append(shard)
        absent = [name for name in named[shard] if name not in file.tensors and name not in file.tied]
        if absent:
            findings.append(f"`{index.name}` says that {some(absent)} lie in `{shard}`, which lacks them")
        unlisted = [name for name in file.tensors if name not in listed]
        if unlisted:
            findings.append(f"`{shard}` holds {some(unlisted)}, which `{index.name}` does not name")
    twice: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, shards in homes.items():
        if len(shards) > 1:
            twice[tuple(shards)].append(name)
    findings += [f"the same tensor in two shards: {some(names)} in {some(s)}" for s, names in twice.items()]
    return [InputError(text, where=str(index.parent)) for text in findings]

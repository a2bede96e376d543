"""A Hugging Face folder: its weights (one file, shards with or without an index), config and sidecars."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from plait.checkpoint._files import unreadable
from plait.checkpoint._index import open_index
from plait.checkpoint._json import read_config, some
from plait.checkpoint._modules import listed_modules, within
from plait.checkpoint._sidecars import find_sidecars
from plait.checkpoint._tensor import Checkpoint, LazyTensor
from plait.checkpoint._weights import TORCH_SUFFIXES, WeightFile, open_weights
from plait.errors import InputError, InputErrors, raise_all

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})(?P<suffix>\.[a-z]+)$")
#: What a trainer leaves beside a model: not the model.
_TRAINING_STATE = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state.*)\.(bin|pt|pth)$")
_ADAPTERS = re.compile(r"adapter_model\.|.*lora.*\.safetensors$")


def open_folder(folder: Path, reference: str) -> Checkpoint:
    """Open a folder of weights with all that travels with them.

    safetensors come before PyTorch files, and files called `model…` before others. Sub-folders that a
    `modules.json` lists belong to the model; their tensors are called `SUB-FOLDER/name`.

    Args:
        folder: an existing folder.
        reference: the user's words for it.

    Raises:
        InputError: no weights, several that exclude each other, or anything wrong with them; all
            problems at once.
    """
    problems: list[InputError] = []
    config = {}
    try:
        config = read_config(folder)
    except InputError as error:
        problems.append(error)
    files: dict[str, WeightFile] = {}
    try:
        files = _open_main(folder)
        for module in listed_modules(folder):
            files |= within(module, _open_main(folder / module))
    except InputError as error:
        problems += error.problems if isinstance(error, InputErrors) else [error]
    raise_all(problems)
    tensors, tied = join(files)
    fingerprint = {name: file.fingerprint for name, file in files.items()}
    return Checkpoint(reference, tensors, config, folder, find_sidecars(folder), None, tied, fingerprint)


def join(files: Mapping[str, WeightFile]) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """All tensors of several weight files, and what is tied in them.

    Raises:
        InputError: a tensor lies in two files.
    """
    tensors: dict[str, LazyTensor] = {}
    homes: dict[str, str] = {}
    tied: dict[str, str] = {}
    problems: list[InputError] = []
    for file, weights in files.items():
        twice = [name for name in weights.tensors if name in tensors]
        if twice:
            others = sorted({homes[name] for name in twice})
            problems.append(InputError(f"{some(twice)} also lie in {some(others)}", where=file))
        tensors.update(weights.tensors)
        homes.update(dict.fromkeys(weights.tensors, file))
        tied.update(weights.tied)
    raise_all(problems)
    return tensors, {alias: name for alias, name in tied.items() if alias not in tensors}


def _open_main(folder: Path) -> dict[str, WeightFile]:
    names = _listing(folder)
    for suffixes in ({".safetensors"}, TORCH_SUFFIXES):
        chosen = _choose(folder, names, suffixes)
        if chosen is None:
            continue
        if chosen.endswith(".index.json"):
            return open_index(folder, folder / chosen, _shards_like(names, chosen))
        shards = _shards_like(names, chosen)
        _check_complete(folder, shards or [chosen])
        return _open_files(folder, shards or [chosen])
    raise InputError(
        "this folder holds no weights that plait reads (safetensors or PyTorch files)",
        where=str(folder),
        hint=_hint(folder, names),
    )


def _listing(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise unreadable(folder, error) from error


def _choose(folder: Path, names: Iterable[str], suffixes: Iterable[str]) -> str | None:
    """The index or file to open: an index before files, `model…` before others; None if there is none."""
    ends = tuple(suffixes)
    indexes = [n for n in names if n.endswith(tuple(f"{end}.index.json" for end in ends))]
    files = [n for n in names if n.endswith(ends) and not _TRAINING_STATE.match(n) and not _ADAPTERS.match(n)]
    firsts = [n for n in files if not (m := _SHARD.match(n)) or n == _first_like(files, m)]
    exact = tuple(f"{stem}{end}" for stem in ("model", "pytorch_model") for end in ends)
    for group in (
        [n for n in indexes if n.removesuffix(".index.json") in exact],
        [n for n in firsts if n in exact],
        [n for n in indexes if n.startswith(("model", "pytorch_model"))],
        [n for n in firsts if n.startswith(("model", "pytorch_model"))],
        indexes,
        firsts,
    ):
        if len(group) > 1:
            raise InputError(
                f"several weights lie here: {some(group)}", where=str(folder), hint="name one file"
            )
        if group:
            return group[0]
    return None


def _first_like(names: Iterable[str], shard: re.Match[str]) -> str:
    return min(n for n in names if (m := _SHARD.match(n)) and _family(m) == _family(shard))


def _family(shard: re.Match[str]) -> tuple[str, str, str]:
    return shard["stem"], shard["total"], shard["suffix"]


def _shards_like(names: Iterable[str], chosen: str) -> list[str]:
    """The shards that belong to an index (of any total) or to one of them (of the same total)."""
    matches = [m for m in map(_SHARD.match, names) if m]
    own = _SHARD.match(chosen)
    if own:
        return [m.string for m in matches if _family(m) == _family(own)]
    stem = Path(chosen.removesuffix(".index.json")).stem
    return [m.string for m in matches if m["stem"] == stem]


def _check_complete(folder: Path, names: list[str]) -> None:
    match = _SHARD.match(names[0])
    if match is None:
        return
    total = int(match["total"])
    there = {int(m["number"]) for m in map(_SHARD.match, names) if m}
    wanted = (f"{match['stem']}-{k:05d}-of-{total:05d}{match['suffix']}" for k in range(1, total + 1))
    missing = [name for k, name in enumerate(wanted, 1) if k not in there]
    if missing:
        raise InputError(f"shards are missing: {some(missing)}", where=str(folder))


def _open_files(folder: Path, names: Iterable[str]) -> dict[str, WeightFile]:
    files: dict[str, WeightFile] = {}
    problems: list[InputError] = []
    for name in names:
        try:
            files[name] = open_weights(folder / name)
        except InputError as error:  # noqa: PERF203
            problems.append(error)
    raise_all(problems)
    return files


def _hint(folder: Path, names: list[str]) -> str:
    if any(name.endswith(".gguf") for name in names):
        return "name the .gguf file itself"
    other = [name for name in names if name.endswith((".h5", ".msgpack", ".onnx"))]
    if other:
        return f"{some(other)} are of another framework; save the model with transformers first"
    inner = sorted(path.parent.name for path in folder.glob("*/*.safetensors"))
    return f"weights lie in its sub-folders {some(inner)}" if inner else "is it the folder of a model?"

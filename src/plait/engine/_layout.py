"""The output's files, laid out before any data exists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import torch

from plait.checkpoint import Checkpoint, Shape, ShardFile, index_json, plan_shards


class Entry(Protocol):
    """A tensor to be written."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> Shape: ...
    @property
    def dtype(self) -> torch.dtype: ...


def split(name: str) -> tuple[str, str]:
    """A tensor's sub-folder (empty for most models) and its name in there."""
    folder, _, own = name.rpartition("/")
    return folder, own


def lay_out(outputs: Iterable[Entry], limit: int, template: Checkpoint) -> list[ShardFile]:
    """The weight files; names are relative to the output's folder, and so are their tensors'."""
    groups: dict[str, list[tuple[str, torch.dtype, Shape]]] = {}
    for output in outputs:
        folder, own = split(output.name)
        groups.setdefault(folder, []).append((own, output.dtype, output.shape))
    stems = _stems(template)
    found = []
    for folder, entries in groups.items():
        for shard in plan_shards(entries, max_shard_size=limit, stem=stems.get(folder, "model")):
            if not folder:
                found.append(shard)
                continue
            offsets = {f"{folder}/{name}": place for name, place in shard.offsets.items()}
            found.append(ShardFile(f"{folder}/{shard.name}", shard.header, shard.size, offsets))
    return found


def indexes(shards: Sequence[ShardFile]) -> Mapping[str, str]:
    """Relative path → text of each index that several shards of one folder need."""
    groups: dict[str, list[ShardFile]] = {}
    for shard in shards:
        folder, name = split(shard.name)
        own = {split(tensor)[1]: place for tensor, place in shard.offsets.items()}
        groups.setdefault(folder, []).append(ShardFile(name, shard.header, shard.size, own))
    found = {}
    for folder, group in groups.items():
        text = index_json(group)
        if text is not None:
            stem = group[0].name.rsplit("-", 3)[0]
            path = f"{stem}.safetensors.index.json"
            found[f"{folder}/{path}" if folder else path] = text
    return found


def _stems(template: Checkpoint) -> dict[str, str]:
    """What weight files are called in each sub-folder of the template."""
    stems: dict[str, str] = {}
    for name in template.fingerprint:
        folder, file = split(name.replace("\\", "/"))
        stem = file.split(".")[0].split("-0")[0]
        if folder and stem:
            stems.setdefault(folder, stem)
    return stems

"""Checking an output against its `plait.json`."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from plait.engine._limits import cores
from plait.errors import InputError

_STEP = 8 << 20


@dataclass(frozen=True)
class VerifyReport:
    """What a check found.

    Attributes:
        ok: every digest is right, nothing is missing.
        problems: what is not, each naming its file or tensor.
        tensors: number of tensors checked.
        files: number of other files checked.
    """

    ok: bool
    problems: list[str]
    tensors: int
    files: int

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def verify(path: str | Path) -> VerifyReport:
    """Check every digest of an output.

    Raises:
        InputError: the folder has no `plait.json` that could be checked against.
    """
    folder = Path(path)
    try:
        known = json.loads((folder / "plait.json").read_text(encoding="utf-8"))
        shards, tensors, files = known["shards"], known["tensors"], known["files"]
    except FileNotFoundError as error:
        raise InputError(
            "there is no plait.json", where=str(folder), hint="name a folder that plait wrote"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError("plait.json is damaged", where=str(folder)) from error
    problems = [_other(folder, name, digest) for name, digest in files.items()]
    seen: set[str] = set()
    with ThreadPoolExecutor(cores()) as pool:
        for name, shard in shards.items():
            problems += _shard(pool, folder, name, shard, tensors, seen)
    problems += [f"{name}: the tensor is missing" for name in tensors if name not in seen]
    found = [problem for problem in problems if problem]
    return VerifyReport(not found, found, len(seen), len(files))


def _other(folder: Path, name: str, digest: str) -> str:
    path = folder / name
    if not path.is_file():
        return f"{name}: the file is missing"
    return "" if blake3(path.read_bytes()).hexdigest() == digest else f"{name}: the file was changed"


def _shard(
    pool: ThreadPoolExecutor,
    folder: Path,
    name: str,
    known: dict[str, Any],
    tensors: dict[str, Any],
    seen: set[str],
) -> list[str]:
    path = folder / name
    if not path.is_file():
        return [f"{name}: the file is missing"]
    if path.stat().st_size != known["size"]:
        return [f"{name}: the file has {path.stat().st_size} bytes, not {known['size']}"]
    with path.open("rb") as file:
        head = file.read(8)
        text = file.read(int.from_bytes(head, "little"))
    if blake3(head + text).hexdigest() != known["header"]:
        return [f"{name}: the header was changed"]
    prefix = name.rpartition("/")[0]
    work = []
    for own, entry in json.loads(text).items():
        if own == "__metadata__":
            continue
        tensor = f"{prefix}/{own}" if prefix else own
        seen.add(tensor)
        low, high = entry["data_offsets"]
        start = 8 + len(text)
        work.append((path, tensor, start + low, start + high, tensors.get(tensor, {}).get("digest")))
    return list(pool.map(lambda job: _tensor(*job), work))


def _tensor(path: Path, name: str, start: int, stop: int, digest: str | None) -> str:
    hasher = blake3()
    with path.open("rb") as file:
        file.seek(start)
        while start < stop:
            data = file.read(min(_STEP, stop - start))
            if not data:
                break
            hasher.update(data)
            start += len(data)
    return "" if hasher.hexdigest() == digest else f"{name}: the tensor's bytes were changed"

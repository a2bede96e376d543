"""Checking an output against its `plait.json`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from blake3 import blake3

from plait.checkpoint import open_safetensors, read_json
from plait.engine._limits import cores
from plait.errors import InputError

#: Bytes of a `plait.json`, which has some hundreds per tensor.
LARGEST_PROVENANCE = 1 << 31
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
    known = _known(folder)
    problems = [_other(folder, name, digest) for name, digest in known["files"].items()]
    seen: set[str] = set()
    with ThreadPoolExecutor(cores()) as pool:
        for name, shard in known["shards"].items():
            problems += _shard(pool, folder, name, shard, known["tensors"], seen)
    problems += [f"{name}: the tensor is missing" for name in known["tensors"] if name not in seen]
    found = [problem for problem in problems if problem]
    return VerifyReport(not found, found, len(seen), len(known["files"]))


def _known(folder: Path) -> dict[str, dict[str, Any]]:
    """What `plait.json` says about files and tensors."""
    path, where = folder / "plait.json", str(folder)
    if not path.is_file():
        what = "there is no plait.json" if folder.is_dir() else "no such folder"
        raise InputError(what, where=where, hint="name a folder that plait wrote")
    content = read_json(path, largest=LARGEST_PROVENANCE)
    for part, inner in (("shards", dict), ("tensors", dict), ("files", str)):
        entries = content.get(part)
        if not isinstance(entries, dict) or not all(isinstance(entry, inner) for entry in entries.values()):
            raise InputError(f"plait.json is damaged: it has no `{part}`", where=where)
        outside = [name for name in entries if part != "tensors" and not _is_inside(name)]
        if outside:
            raise InputError(f"plait.json is damaged: `{outside[0]}` is no file of the folder", where=where)
    return content


def _is_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and not PurePosixPath(name).is_absolute() and ".." not in parts and "\0" not in name


def _other(folder: Path, name: str, digest: str) -> str:
    path = folder / name
    if not path.is_file():
        return f"{name}: the file is missing"
    try:
        found = region_digest(path, 0, path.stat().st_size)
    except OSError as error:
        return f"{name}: it can't be read ({error.strerror})"
    return "" if found == digest else f"{name}: the file was changed"


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
    try:
        if path.stat().st_size != known.get("size"):
            return [f"{name}: the file has {path.stat().st_size} bytes, not {known.get('size')}"]
        shard = open_safetensors(path)
    except (OSError, InputError) as error:
        return [str(error)]
    head = len(shard.header).to_bytes(8, "little") + shard.header
    if blake3(head).hexdigest() != known.get("header"):
        return [f"{name}: the header was changed"]
    prefix = name.rpartition("/")[0]
    work = []
    for own, tensor in shard.tensors.items():
        full = f"{prefix}/{own}" if prefix else own
        seen.add(full)
        stop = tensor.offset + tensor.nbytes
        work.append((path, full, tensor.offset, stop, tensors.get(full, {}).get("digest")))
    return list(pool.map(lambda job: _tensor(*job), work))


def _tensor(path: Path, name: str, start: int, stop: int, digest: object) -> str:
    try:
        found = region_digest(path, start, stop)
    except OSError as error:
        return f"{name}: it can't be read ({error.strerror})"
    return "" if found == digest else f"{name}: the tensor's bytes were changed"


def region_digest(path: Path, start: int, stop: int) -> str:
    """blake3 of the bytes `start:stop` of a file, or of those that there are."""
    hasher = blake3()
    with path.open("rb") as file:
        file.seek(start)
        while start < stop:
            data = file.read(min(_STEP, stop - start))
            if not data:
                break
            hasher.update(data)
            start += len(data)
    return hasher.hexdigest()

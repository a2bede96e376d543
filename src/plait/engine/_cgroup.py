"""What the process's control groups allow it, on Linux, in versions 1 and 2.

The process's own group is the one that `/proc/self/cgroup` names, below the place where its hierarchy is
mounted. A limit holds for all groups below it, so the smallest on the way up counts. A container may see
its own group as the top (`/`), or a path that only exists outside; then the mount itself is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")


def memory_limit(root: Path = _ROOT) -> int | None:
    """Bytes that the process's groups may use; None without a limit.

    Args:
        root: where `proc` and the mounts lie.
    """
    words = [_read(folder / "memory.limit_in_bytes") for folder in _groups("memory", root)]
    words += [_read(folder / name) for folder in _groups("", root) for name in ("memory.max", "memory.high")]
    return min((int(word) for word in words if word.isdigit()), default=None)


def cpu_limit(root: Path = _ROOT) -> float | None:
    """Processors' worth of time that the process's groups may use; None without a limit.

    Args:
        root: where `proc` and the mounts lie.
    """
    pairs = [_read(folder / "cpu.max").split() for folder in _groups("", root)]
    pairs += [
        [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
        for folder in _groups("cpu", root)
    ]
    numbers = [(int(p[0]), int(p[1])) for p in pairs if len(p) == 2 and p[0].isdigit() and p[1].isdigit()]
    return min((quota / period for quota, period in numbers if period), default=None)


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """Folders of the process's own group and of those above it; version 2 has no name for a controller."""
    own = ""
    for line in _read(root / "proc/self/cgroup").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and controller in parts[1].split(","):
            own = parts[2]
    for top, mount in _mounts(controller, root):
        inner = own.removeprefix(top.rstrip("/")) if own.startswith(top) else ""
        folder = root / mount.lstrip("/")
        for part in ("", *(part for part in inner.split("/") if part not in ("", "."))):
            folder = folder / part
            yield folder


def _mounts(controller: str, root: Path) -> Iterator[tuple[str, str]]:
    """Which part of a controller's hierarchy is mounted, and where."""
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(rest) < 3:
            continue
        second = rest[0] == "cgroup2"
        if second != (controller == "") or (not second and controller not in rest[2].split(",")):
            continue
        yield fields[3], fields[4].replace("\\040", " ")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""

"""Memory and processors follow the process's own control group and those above it."""

from __future__ import annotations

from pathlib import Path

import pytest

from plait.engine._cgroup import cpu_limit, memory_limit

V2 = "30 20 0:26 {top} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "35 31 0:32 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "36 31 0:33 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
)


def system(root: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    """A file system with these control groups."""
    for name, text in {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_version_2_reads_the_groups_own_files_and_those_above(tmp_path):
    root = system(
        tmp_path,
        "0::/user.slice/job\n",
        V2.format(top="/"),
        {
            "sys/fs/cgroup/user.slice/memory.max": "3000000000\n",
            "sys/fs/cgroup/user.slice/cpu.max": "max 100000\n",
            "sys/fs/cgroup/user.slice/job/memory.max": "max\n",
            "sys/fs/cgroup/user.slice/job/memory.high": "2000000000\n",
            "sys/fs/cgroup/user.slice/job/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/user.slice/other/memory.max": "1000\n",
        },
    )
    assert memory_limit(root) == 2_000_000_000
    assert cpu_limit(root) == 1.5


def test_version_1_reads_each_controllers_own_hierarchy(tmp_path):
    root = system(
        tmp_path,
        "4:memory:/jobs/a\n3:cpu,cpuacct:/jobs/b\n0::/\n",
        V1.format(top="/"),
        {
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/jobs/a/memory.limit_in_bytes": "700000000\n",
            "sys/fs/cgroup/memory/jobs/b/memory.limit_in_bytes": "5\n",
            "sys/fs/cgroup/cpu,cpuacct/jobs/b/cpu.cfs_quota_us": "300000\n",
            "sys/fs/cgroup/cpu,cpuacct/jobs/b/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )
    assert memory_limit(root) == 700_000_000
    assert cpu_limit(root) == 3.0


@pytest.mark.parametrize(
    ("group", "top"),
    [("/", "/"), ("/docker/abc", "/docker/abc"), ("/../../outside", "/")],
    ids=["own namespace", "the host's path, mounted at the group", "a group outside of the namespace"],
)
def test_in_a_container_the_mount_is_the_group(tmp_path, group, top):
    files = {"sys/fs/cgroup/memory.max": "123456789\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}
    root = system(tmp_path, f"0::{group}\n", V2.format(top=top), files)
    assert memory_limit(root) == 123_456_789
    assert cpu_limit(root) == 0.5


def test_without_control_groups_there_is_no_limit(tmp_path):
    assert memory_limit(tmp_path) is None
    assert cpu_limit(tmp_path) is None
    assert memory_limit(system(tmp_path, "0::/\n", V2.format(top="/"), {})) is None

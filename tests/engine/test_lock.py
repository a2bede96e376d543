"""A lock is one holder's until its handle is closed, whoever removes files meanwhile."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from plait.engine import _lock as lock
from plait.errors import InputError


def test_a_lock_has_one_holder_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "lock"
    handle = lock.hold(path)
    assert handle is not None
    assert lock.hold(path) is None
    os.close(handle)
    again = lock.hold(path)
    assert again is not None
    os.close(again)


def test_a_file_that_is_removed_before_it_is_locked_is_made_again(tmp_path: Path, monkeypatch) -> None:
    path, real, left = tmp_path / "folder" / "lock", lock._try_lock, [2]

    def removed(handle: int) -> bool:
        if left[0]:
            left[0] -= 1
            shutil.rmtree(path.parent)
        return real(handle)

    monkeypatch.setattr(lock, "_try_lock", removed)
    handle = lock.hold(path)
    assert handle is not None
    assert os.path.samestat(path.stat(), os.fstat(handle))
    os.close(handle)


@pytest.mark.skipif(os.name == "nt", reason="no fcntl there")
@pytest.mark.parametrize(
    ("why", "held"), [(errno.EAGAIN, True), (errno.EACCES, True), (errno.ENOTSUP, False)]
)
def test_a_file_system_without_locks_tells_nothing_of_other_runs(tmp_path: Path, monkeypatch, why, held):
    def flock(handle: int, how: int) -> None:
        raise OSError(why, os.strerror(why))

    monkeypatch.setitem(sys.modules, "fcntl", SimpleNamespace(flock=flock, LOCK_EX=2, LOCK_NB=4))
    handle = lock.hold(tmp_path / "lock")
    assert (handle is None) == held
    if handle is not None:
        os.close(handle)


def test_a_folder_that_can_not_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Not a directory"):
        lock.hold(tmp_path / "file" / "inner" / "lock")
    with (
        pytest.raises(InputError, match="can't write here: Not a directory"),
        lock.locked(tmp_path / "file" / "inner" / "out"),
    ):
        pass

"""Memory of large tensors is kept while a fleet trains, and given back afterwards."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest
import torch
from networks import MLP, task

from plait.fleet import Fleet, Member
from plait.fleet._memory import _glibc, memory_kept

pytestmark = pytest.mark.skipif(_glibc() is None, reason="the allocator isn't glibc's, or is set up already")


def faults() -> int:
    """Pages that the kernel gives for a tensor of 64 MB, where one was freed before."""

    def used() -> int:
        torch.empty(1 << 24).fill_(1.0)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    before = used()
    return used() - before


def test_large_tensors_get_the_memory_of_those_before_them() -> None:
    new = faults()
    with memory_kept():
        faults()
        with memory_kept():
            assert faults() < new / 10
        assert faults() < new / 10
    assert faults() > new / 2


def test_it_is_given_back_after_an_error() -> None:
    new = faults()
    with pytest.raises(KeyError), memory_kept():
        raise KeyError
    assert faults() > new / 2


def test_memory_is_kept_in_training_alone() -> None:
    class Watch:
        found = -1

        def on_step(self, fleet: Fleet, record: object) -> None:
            faults()
            self.found = faults()

    new, watch = faults(), Watch()
    fleet = Fleet([Member(name="a", steps=1)], task(MLP), model=lambda: MLP().double())
    fleet.fit(callbacks=[watch], quiet=True)
    assert 0 <= watch.found < new / 10
    assert faults() > new / 2


@pytest.mark.parametrize(
    "setting", ["MALLOC_MMAP_THRESHOLD_=200000", "GLIBC_TUNABLES=glibc.malloc.mmap_max=9"]
)
def test_settings_of_the_environment_stay(setting: str) -> None:
    name, _, value = setting.partition("=")
    code = "from plait.fleet._memory import _glibc; print(_glibc() is None)"
    ran = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {name: value}, capture_output=True, check=False
    )
    assert ran.stdout == b"True\n", ran.stderr

"""What all tests share."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no reason for a test to fail.
settings.register_profile("plait", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("plait")


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """A context as if a disk had room for no more than so many bytes of any file."""

    @contextmanager
    def full(room: int) -> Iterator[None]:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return full

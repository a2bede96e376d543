"""Rooms are at hand where `plait` is; what is not there is told in Python's words."""

from __future__ import annotations

import subprocess
import sys

import pytest

import plait
from plait import tasks


def test_what_is_not_there_is_told_as_python_does() -> None:
    for module in (plait, tasks):
        with pytest.raises(AttributeError) as caught:
            module.NotThere
        assert str(caught.value) == f"module '{module.__name__}' has no attribute 'NotThere'"
        assert not hasattr(module, "not_there")


def test_rooms_are_imported_when_they_are_asked_for() -> None:
    code = (
        "import sys, plait\n"
        "assert 'torch' not in sys.modules\n"
        "print(plait.tasks.evaluate_lm.__name__, 'tasks' in dir(plait))\n"
        "plait.tasks.NotThere"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "evaluate_lm True\n"
    assert done.stderr.strip().endswith("AttributeError: module 'plait.tasks' has no attribute 'NotThere'")

"""What a step took: time of all its pieces, memory in 10⁶ bytes, kept while it works."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from plait.study import _spent
from plait.study._spent import SPENT, Spent, spending
from plait.study._steps import Done, Step, run_steps


def run(work: Callable[[Path], None], out: Path, *, resume: bool = True) -> Done:
    def all_of_it(folder: Path, _: Mapping[str, Path]) -> None:
        work(folder)

    return run_steps([Step("it", {}, all_of_it)], out, resume=resume)["it"]


def partial(out: Path) -> Path:
    (found,) = (out / "steps").glob("it-*.partial")
    return found


def quick(_: Path) -> None:
    """Takes no time."""


def interrupted(_: Path) -> None:
    time.sleep(0.4)
    raise KeyboardInterrupt


def test_the_time_of_a_step_that_was_ended_twice_is_that_of_all_pieces(
    tmp_path: Path,
) -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(interrupted, tmp_path)
    done = run(quick, tmp_path)
    assert 0.8 <= done.seconds < 5
    assert run(quick, tmp_path) == done  # as it is read again
    assert run(quick, tmp_path).cached
    assert [each.name for each in (tmp_path / done.folder).iterdir()] == ["step.json"]


def test_a_step_that_begins_anew_counts_from_its_beginning(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(interrupted, tmp_path)
    assert run(quick, tmp_path, resume=False).seconds < 0.3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no processes that fork")
def test_a_killed_process_has_told_its_time_while_it_worked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_spent, "_EVERY", 0.05)

    def dying(folder: Path) -> None:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            time.sleep(0.05)
            if (folder / SPENT).is_file() and json.loads((folder / SPENT).read_text())["seconds"] > 0.5:
                os._exit(7)  # as SIGKILL: nothing is tidied up

    child = os.fork()
    if child == 0:
        run(dying, tmp_path)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    before = json.loads((partial(tmp_path) / SPENT).read_text())["seconds"]
    assert before > 0.5
    assert run(quick, tmp_path).seconds >= before


def test_half_a_note_is_none(tmp_path: Path) -> None:
    for text in ("", "{", "[]", '{"seconds": "long"}', "{}"):
        (tmp_path / SPENT).write_text(text)
        with spending(tmp_path) as spent:
            assert spent().seconds < 1


def test_pieces_add_seconds_and_the_most_memory_is_that_of_any() -> None:
    assert Spent(1.0, 30.0).and_then(Spent(2.0, 20.0)) == Spent(3.0, 30.0)
    assert Spent(1.0, math.nan).and_then(Spent(2.0, 20.0)) == Spent(3.0, 20.0)
    assert math.isnan(Spent(1.0).and_then(Spent(2.0)).peak_mb)


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="this system does not tell")
def test_memory_is_told_in_millions_of_bytes(tmp_path: Path) -> None:
    """400 million bytes are 400 MB; in 2²⁰ bytes they would be 381."""

    def large(_: Path) -> None:
        assert np.ones(400_000_000, dtype=np.uint8)[-1] == 1

    none, much = run(quick, tmp_path / "none"), run(large, tmp_path / "much")
    assert much.peak_mb - none.peak_mb == pytest.approx(400, abs=8)


def test_where_the_system_does_not_tell_memory_the_file_is_json_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_spent, "_peak_mb", lambda: math.nan)
    done = run(quick, tmp_path)
    assert json.loads((tmp_path / done.folder / "step.json").read_text())["peak_mb"] is None
    assert math.isnan(done.peak_mb)
    assert math.isnan(run(quick, tmp_path).peak_mb)

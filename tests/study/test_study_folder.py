"""Whose an output folder is: what may run in it, and what would write over another study's report."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import small_study
import torch

from plait.errors import InputError
from plait.study import load_study, run_study
from plait.study._whole import write_text

STUDY = """
study: tables
suite: suite.yaml
experts: {backend: sequential, steps: 4, batch_size: 16, lr: 0.01}
bootstrap: 0
ways:
  average: {merge: linear}
"""
EDITED = STUDY.replace("merge: linear", "merge: ties")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study and its results under `out`."""
    return small_study.ran(tmp_path_factory.mktemp("folder"), STUDY)


@pytest.fixture
def ran(first: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    return Path(shutil.copytree(first, tmp_path / "ran"))


def test_a_study_of_another_name_is_refused(ran: Path) -> None:
    (ran / "study.yaml").write_text(STUDY.replace("study: tables", "study: chairs"))
    with pytest.raises(InputError, match="the study `tables` is there, and this is `chairs`"):
        run_study(ran / "study.yaml", ran / "out")


def test_another_file_of_the_same_name_is_refused_and_writes_nothing(ran: Path) -> None:
    before = (ran / "out" / "report" / "report.html").read_bytes()
    (ran / "other.yaml").write_text(EDITED)
    with pytest.raises(InputError, match="and this is another study `tables`") as caught:
        run_study(ran / "other.yaml", ran / "out")
    assert str(ran / "study.yaml") in str(caught.value)
    assert str(ran / "other.yaml") in str(caught.value)
    assert "another folder" in str(caught.value)
    assert (ran / "out" / "report" / "report.html").read_bytes() == before
    assert run_study(ran / "study.yaml", ran / "out").ran == []


def test_an_edited_study_goes_on_in_its_folder(ran: Path) -> None:
    (ran / "study.yaml").write_text(EDITED)
    assert run_study(ran / "study.yaml", ran / "out").ran == ["average @0", "score average @0"]


def test_a_moved_file_keeps_its_folder_even_edited(ran: Path) -> None:
    (ran / "study.yaml").rename(ran / "renamed.yaml")
    assert run_study(ran / "renamed.yaml", ran / "out").ran == []
    (ran / "renamed.yaml").write_text(EDITED)
    assert run_study(ran / "renamed.yaml", ran / "out").ran == ["average @0", "score average @0"]
    (ran / "study.yaml").write_text(STUDY)
    with pytest.raises(InputError, match="and this is another study `tables`"):
        run_study(ran / "study.yaml", ran / "out")


def test_a_moved_file_of_another_suite_is_refused(ran: Path) -> None:
    (ran / "study.yaml").unlink()
    suite = (ran / "suite.yaml").read_text().replace("suite: tables", "suite: chairs")
    (ran / "chairs.yaml").write_text(suite)
    (ran / "other.yaml").write_text(STUDY.replace("suite.yaml", "chairs.yaml"))
    with pytest.raises(InputError, match="of the suite `tables` is there, and this one is of `chairs`"):
        run_study(ran / "other.yaml", ran / "out")


def test_a_copy_to_the_letter_is_the_same_study(ran: Path) -> None:
    shutil.copyfile(ran / "study.yaml", ran / "copy.yaml")
    assert run_study(ran / "copy.yaml", ran / "out").ran == []


def test_a_copy_with_other_data_or_another_base_is_refused_and_writes_nothing(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    shutil.copytree(ran, other, ignore=shutil.ignore_patterns("out"))
    assert run_study(other / "study.yaml", ran / "out").ran == []
    before = {p: p.read_bytes() for p in (ran / "out").rglob("*") if p.is_file()}
    table = other / "first-train.csv"
    kept = table.read_text()
    table.write_text(kept.replace(kept.splitlines()[1], kept.splitlines()[2]))
    with pytest.raises(InputError, match="reads the same, but its data or its base are others") as caught:
        run_study(other / "study.yaml", ran / "out")
    assert str(ran / "study.yaml") in str(caught.value)
    table.write_text(kept)
    with monkeypatch.context() as patch:
        patch.setattr(small_study, "network", lambda: torch.nn.Sequential(torch.nn.Linear(6, 16)))
        with pytest.raises(InputError, match="its base are others"):
            run_study(other / "study.yaml", ran / "out")
    assert {p: p.read_bytes() for p in (ran / "out").rglob("*") if p.is_file()} == before
    assert run_study(other / "study.yaml", ran / "out").ran == []


def test_a_study_s_own_data_may_change_and_then_a_copy_must_follow(ran: Path, tmp_path: Path) -> None:
    shutil.copytree(ran, tmp_path / "other", ignore=shutil.ignore_patterns("out"))
    (ran / "first-test.csv").write_text((ran / "first-validation.csv").read_text().replace(".1", ".2"))
    assert "score experts @0" in run_study(ran / "study.yaml", ran / "out").ran
    with pytest.raises(InputError, match="reads the same, but"):
        run_study(tmp_path / "other" / "study.yaml", ran / "out")
    shutil.copyfile(ran / "first-test.csv", tmp_path / "other" / "first-test.csv")
    assert run_study(tmp_path / "other" / "study.yaml", ran / "out").ran == []


def test_a_study_moved_with_its_data_keeps_a_folder_that_lies_elsewhere(ran: Path, tmp_path: Path) -> None:
    assert run_study(ran / "study.yaml", tmp_path / "results").ran != []
    ran.rename(tmp_path / "moved")
    assert run_study(tmp_path / "moved" / "study.yaml", tmp_path / "results").ran == []


def test_a_copy_takes_no_folder_over(ran: Path) -> None:
    shutil.copyfile(ran / "study.yaml", ran / "copy.yaml")
    run_study(ran / "copy.yaml", ran / "out")
    (ran / "copy.yaml").write_text(EDITED + "  joint: {train: joint}\n")
    with pytest.raises(InputError, match="and this is another study `tables`"):
        run_study(ran / "copy.yaml", ran / "out")
    (ran / "study.yaml").write_text(EDITED)
    assert run_study(ran / "study.yaml", ran / "out").ran == ["average @0", "score average @0"]


@contextmanager
def full() -> Iterator[None]:
    """As if the disk were full: nothing can be written to any file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_a_finished_study_as_it_was(ran: Path) -> None:
    before = {p: p.read_bytes() for p in (ran / "out").rglob("*") if p.is_file()}
    with full(), pytest.raises(InputError, match="can't be written"):
        run_study(ran / "study.yaml", ran / "out")
    (ran / "study.yaml").rename(ran / "moved.yaml")  # so that what is noted has to be written anew
    with full(), pytest.raises(InputError, match="can't be written"):
        run_study(ran / "moved.yaml", ran / "out")
    assert {p: p.read_bytes() for p in (ran / "out").rglob("*") if p.is_file()} == before
    assert run_study(ran / "moved.yaml", ran / "out").ran == []


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    write_text("before", tmp_path / "file")
    with full(), pytest.raises(OSError, match="too large"):
        write_text("after", tmp_path / "file")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "before"


def test_steps_of_nobody_are_refused_and_can_be_claimed(ran: Path) -> None:
    (ran / "out" / "study.json").unlink()
    with pytest.raises(InputError, match=r"no study\.json that says whose") as caught:
        run_study(ran / "study.yaml", ran / "out")
    assert '{"study": "tables"}' in str(caught.value)


def test_a_study_and_its_folder_are_moved_or_copied_together(ran: Path, tmp_path: Path) -> None:
    shutil.copytree(ran, tmp_path / "copied")
    (tmp_path / "copied" / "study.yaml").write_text(EDITED)
    again = run_study(tmp_path / "copied" / "study.yaml", tmp_path / "copied" / "out")
    assert again.ran == ["average @0", "score average @0"]


def test_a_study_that_was_loaded_is_known_by_its_file(ran: Path) -> None:
    known = load_study(ran / "study.yaml")
    assert run_study(known, ran / "out").ran == []
    with pytest.raises(InputError, match="was not read from it"):
        run_study(replace(known, file=None), ran / "out")


def test_a_folder_of_an_earlier_plait_is_known_by_the_study_s_name(ran: Path) -> None:
    (ran / "out" / "study.json").write_text('{"study": "tables"}\n')
    assert run_study(ran / "study.yaml", ran / "out").ran == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"study": "tables", "file": 3}'])
def test_a_record_that_is_none_is_told_and_what_to_do(ran: Path, text: str) -> None:
    (ran / "out" / "study.json").write_text(text)
    with pytest.raises(InputError, match="can't be a study's folder") as caught:
        run_study(ran / "study.yaml", ran / "out")
    told = (
        'if its `steps` are your study\'s, write {"study": "NAME"} into study.json, else give another folder'
    )
    assert told in str(caught.value)
    (ran / "out" / "study.json").write_text('{"study": "tables"}')
    assert run_study(ran / "study.yaml", ran / "out").ran == []


def test_a_folder_of_other_things_is_refused(ran: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="no study's folder"):
        run_study(ran / "study.yaml", tmp_path / "full")

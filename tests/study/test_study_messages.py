"""What a user is told of a study that says something wrong: in plain words, of the right line, and once."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_study

from plait.errors import InputError
from plait.study import load_study

BRANCH = "branch:\n  second: {from: START}\nbootstrap: 50"


def told(folder: Path, *changes: tuple[str, str]) -> str:
    """What is wrong with the small study after some changes, without the folder's name."""
    text = small_study.STUDY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = small_study.write(folder, text)
    with pytest.raises(InputError) as caught:
        load_study(path)
    return str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize("text", ["", "- a", "a: 1\n---\nb: 2", "study: [", "study: !!binary aGk="])
def test_a_study_is_not_called_a_recipe(tmp_path: Path, text: str) -> None:
    path = small_study.write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load_study(path)
    assert "recipe" not in str(caught.value)
    (tmp_path / "suite.yaml").write_text(text)
    path.write_text(small_study.STUDY)
    with pytest.raises(InputError) as caught:
        load_study(path)
    assert "recipe" not in str(caught.value)


def test_a_folder_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this is a folder, and a study is a YAML file"):
        load_study(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("suite: suite.yaml", "suite: nope.yaml", "study.yaml:3: there is no file `nope.yaml`"),
        ("suite: suite.yaml", "suite: glyfs", "study.yaml:3: there is no suite `glyfs`"),
        (
            "suite: suite.yaml",
            "suite: suite.yaml\ntasks: [first, furst]",
            "study.yaml:4, suite `tables`: there is no task `furst`",
        ),
        (
            "suite: suite.yaml",
            "suite: suite.yaml\ntasks: [second, first, second]",
            "study.yaml:4: task `second` is there twice",
        ),
        (
            "suite: suite.yaml",
            "suite: suite.yaml\ntasks: []",
            "`tasks` is `[]`, and it must hold at",
        ),
        ("[0.2, 0.4, 0.8]", "[0.2, 0.4, 0.2]", "study.yaml:11: in `lambda`, the value `0.2` is there twice"),
        ("bootstrap: 50", "seeds: [3, 4, 3]", "study.yaml:8: seed 3 is there twice"),
        ("bootstrap: 50", "seeds: [-1]", "study.yaml:8: seed -1 is below 0"),
        ("joint > average]", "experts > base]", "study.yaml:7: `experts > base` is there twice"),
        (
            "[0.2, 0.4, 0.8]",
            "['0.2', 0.4]",
            "and to try '0.2' for `lambda` is to try text\n  hint: write a number without quotes",
        ),
        ("study: tables", "study: '  '", "study.yaml:2: the study has no name"),
        ("study: tables", "study: 3", "study.yaml:2: `study` is `3`, and it must be text"),
        ("bootstrap: 50", "bootstrap: -1", "study.yaml:8: `bootstrap` is `-1`, and it must be at least 0"),
        (
            "bootstrap: 50",
            "pictures: 1.5",
            "`pictures` is `1.5`, and it must be a whole number",
        ),
        ("bootstrap: 50", "base: 3", "`base` is `3`, and it must be a checkpoint, or a mapping"),
        ("bootstrap: 50", "base: {train: sole}", "`base.train` is `'sole'`, and it must be joint"),
        ("bootstrap: 50", "base: {tasks: [first]}", "study.yaml:8: `base.train` is missing"),
        ("bootstrap: 50", BRANCH.replace("START", "3"), "study.yaml:9: `branch.second.from` is `3`"),
        (
            "bootstrap: 50",
            BRANCH.replace("START", "{first: x}"),
            "study.yaml:9: `branch.second.from.first` is `'x'`, and it must be a number",
        ),
        (
            "bootstrap: 50",
            BRANCH.replace("START", "{first: -1}"),
            "study.yaml:9: `branch.second.from.first` is `-1`, and it must be above 0",
        ),
        (
            "bootstrap: 50",
            BRANCH.replace("START", "thrid"),
            "study.yaml:9: `second` can't start from",
        ),
        ("bootstrap: 50", BRANCH.replace("second", "sekond"), "study.yaml:9: there is no task `sekond`"),
        ("merge: linear", "merge: slerp, options: {t: 0.5}", "study.yaml:10: method `slerp` takes 1 model"),
        ("ensemble: probabilities", "posterior: average", "study.yaml:13: a domain posterior needs"),
        ("train: joint,", "train: joint, weights: {first: 1},", "study.yaml:12: `weights` has none"),
    ],
)
def test_it_is_told_plainly_and_of_its_line(tmp_path: Path, old: str, new: str, line: str) -> None:
    found = told(tmp_path, (old, new))
    assert line in found
    assert "input should" not in found
    assert "constrained" not in found
    assert ".str" not in found


def test_all_faulty_settings_of_experts_are_told_at_once(tmp_path: Path) -> None:
    found = told(tmp_path, ("steps: 40, batch_size: 16, lr: 0.01", "steps: -5, batch_size: 0, lr: -1"))
    assert found.splitlines()[0] == "3 problems found:"
    assert all(
        f"- study.yaml:4: `{what}" in found for what in ("lr` is -1", "batch_size` is 0", "steps` is -5")
    )


def test_a_misspelt_setting_does_not_hide_the_values_of_others(tmp_path: Path) -> None:
    found = told(tmp_path, ("steps: 40, batch_size: 16, lr: 0.01", "stepz: 4, batch_size: 0, keep: best"))
    assert found.splitlines()[0] == "2 problems found:"
    assert "experts have no setting `stepz`\n  hint: did you mean `steps`?" in found
    assert "`batch_size` is 0" in found


def test_a_faulty_setting_of_experts_is_not_told_again_of_ways_that_take_it(tmp_path: Path) -> None:
    assert told(tmp_path, ("lr: 0.01", "lr: -1")).startswith("study.yaml:4: `lr` is -1")


def test_a_faulty_way_is_there_for_what_names_it(tmp_path: Path) -> None:
    assert told(tmp_path, ("{merge: linear}", "linear")).startswith("study.yaml:10: `ways.average` is")


def test_a_base_that_can_not_be_had_is_told_of_its_line(tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    assert told(tmp_path, ("bootstrap: 50", "base: half")).startswith("study.yaml:8, ")


def test_a_number_with_an_exponent_and_no_point_is_a_number(tmp_path: Path) -> None:
    text = STUDY_OF_EXPONENTS.format(lr="1e-3", lower="2E-1", higher="+4e-1")
    study = load_study(small_study.write(tmp_path, text))
    assert study.experts["lr"] == 0.001
    assert study.ways["task arithmetic"].tune == {"lambda": [0.2, 0.4]}
    assert study.ways["joint"].model_dump()["settings"] == {"lr": 0.01}
    assert study.name == "1e3"


STUDY_OF_EXPONENTS = """
study: 1e3
suite: suite.yaml
experts: {{steps: 4, lr: {lr}}}
ways:
  task arithmetic: {{merge: task_arithmetic, tune: {{lambda: [{lower}, {higher}]}}}}
  joint: {{train: joint, settings: {{lr: 1e-2}}}}
"""

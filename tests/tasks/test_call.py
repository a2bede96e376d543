"""Where a YAML file's `call` is looked for: beside the file first; nothing is left changed or mixed up."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from plait.errors import InputError
from plait.tasks import load_suite

SUITE = """
suite: mine
base: {call: "CALL"}
width: 4
tasks:
  - {name: one, classes: 2, data: {csv: {train: one.csv, test: two.csv}}}
"""
NETWORK = """
from torch import nn

from called_helper import WIDTH


def network():
    import called_later

    return nn.Linear(WIDTH, called_later.OUT)
"""

ALONE = "from torch import nn\ndef network(): return nn.Linear(4, 4)\n"


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    before, path = set(sys.modules), list(sys.path)
    yield
    assert sys.path == path
    for name in set(sys.modules) - before:
        if name.startswith("called"):
            del sys.modules[name]


def write(folder: Path, call: str = "called:network", width: int = 4, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "one.csv").write_text("a,label\n1,0\n2,1\n")
    (folder / "two.csv").write_text("a,label\n3,0\n4,1\n")
    given = {"called": NETWORK, "called_helper": f"WIDTH = {width}", "called_later": "OUT = 4"} | files
    for name, text in given.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "suite.yaml").write_text(SUITE.replace("CALL", call))
    return folder / "suite.yaml"


def test_a_function_is_found_beside_the_file_with_what_its_module_imports(tmp_path: Path) -> None:
    suite = load_suite(str(write(tmp_path)))
    first, again = suite.base(), suite.base()
    assert isinstance(first, torch.nn.Linear)
    assert type(first) is type(again)
    assert first.weight.shape == (4, 4)


def test_a_function_in_a_package_is_found(tmp_path: Path) -> None:
    write(tmp_path, "called_package.nets:network")
    (tmp_path / "called_package").mkdir()
    text = "from .sizes import OUT\nfrom torch import nn\ndef network(): return nn.Linear(4, OUT)\n"
    (tmp_path / "called_package" / "nets.py").write_text(text)
    (tmp_path / "called_package" / "sizes.py").write_text("OUT = 3\n")
    assert load_suite(str(tmp_path / "suite.yaml")).base().weight.shape == (3, 4)


def test_modules_of_one_name_in_two_folders_are_not_mixed_up(tmp_path: Path) -> None:
    one, two = (
        load_suite(str(write(tmp_path / name, width=w, called=ALONE))) for name, w in (("a", 4), ("b", 5))
    )
    assert one.base().weight.shape == (4, 4)
    with pytest.raises(InputError, match=r"module `called` is in .*b, and another one") as caught:
        two.base()
    assert str(tmp_path / "a" / "called.py") in str(caught.value)
    assert "rename one of them" in str(caught.value)
    assert one.base().weight.shape == (4, 4)
    assert sys.modules["called"].__file__ == str(tmp_path / "a" / "called.py")


def test_helpers_of_one_name_are_not_mixed_up_either(tmp_path: Path) -> None:
    one = load_suite(str(write(tmp_path / "a")))
    two = load_suite(str(write(tmp_path / "b", "called_two:network", 5, called_two=NETWORK)))
    assert one.base().weight.shape == (4, 4)
    with pytest.raises(InputError, match=r"module `called_helper` is in .*b, and another one"):
        two.base()
    assert "called_two" not in sys.modules
    assert sys.modules["called_helper"].WIDTH == 4


def test_a_file_of_a_loaded_module_s_name_that_is_not_needed_does_no_harm(tmp_path: Path) -> None:
    kept = sys.modules["torch"]
    one = load_suite(str(write(tmp_path / "a")))
    other = "from torch import nn\ndef network(): return nn.Linear(2, 2)\n"
    two = load_suite(str(write(tmp_path / "b", "called_two:network", called_two=other)))
    assert one.base().weight.shape == (4, 4)
    assert two.base().weight.shape == (2, 2)
    assert one.base().weight.shape == (4, 4)
    assert sys.modules["torch"] is kept


def test_what_is_installed_is_found_where_the_folder_has_nothing(tmp_path: Path) -> None:
    suite = load_suite(str(write(tmp_path, "torch.nn:Identity")))
    assert isinstance(suite.base(), torch.nn.Identity)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("called_nowhere:network", "there is no module `called_nowhere`"),
        ("called.inside:network", "there is no module `called.inside`"),
        ("called:netwrok", "called.py has no function `netwrok`\n  hint: did you mean `network`?"),
        ("called_broken:network", "No module named 'called_what'"),
        ("called_wrong:network", "SyntaxError: '(' was never closed\n  hint: look at "),
        (":network", "which is no `package.module:function`"),
        ("..called:network", "which is no `package.module:function`"),
    ],
)
def test_what_is_not_found_is_told_of_its_line(tmp_path: Path, call: str, told: str) -> None:
    path = write(tmp_path, call, called_broken="import called_what\n", called_wrong="print(\n")
    with pytest.raises(InputError) as caught:
        load_suite(str(path)).base()
    assert str(caught.value).startswith(f"{path}:3: `call` names `{call}`")
    assert told in str(caught.value)
    if "Syntax" in told:
        assert str(caught.value).endswith(f"{tmp_path / 'called_wrong.py'}, line 1")
    if "no module" in told:
        assert f"it is looked for in {tmp_path}, then among installed packages" in str(caught.value)

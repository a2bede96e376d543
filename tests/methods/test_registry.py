"""Methods from outside: an installed package's entry point, and a Python file that a recipe names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

_PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "plait-doubled"
version = "1.0"
[project.entry-points."plait.methods"]
doubled = "plait_doubled:METHOD"
[tool.setuptools]
py-modules = ["plait_doubled"]
"""
_MODULE = """
from plait.methods import Method, Option

METHOD = Method(
    "doubled",
    "the first model, times a factor",
    "nobody",
    lambda c: c.option("factor") * c.models[0],
    (Option("factor", 2.0, "what it is multiplied by", low=0.0),),
)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for number, name in enumerate("ab", 1):
        (tmp_path / name).mkdir()
        save_file({"w": torch.full((3, 4), float(number))}, tmp_path / name / "model.safetensors")
    return tmp_path


def install(place: Path, module: str) -> Path:
    """A package with this module, installed by pip into a folder."""
    (place / "source").mkdir()
    (place / "source" / "pyproject.toml").write_text(_PROJECT)
    (place / "source" / "plait_doubled.py").write_text(module)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    target = ["--target", str(place / "installed"), str(place / "source")]
    subprocess.run([*pip, *target], check=True, capture_output=True, timeout=300)
    return place / "installed"


def plait(place: Path, *words: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"from plait.cli import main; main({list(words)!r})"],
        cwd=place,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ if path is None else {**os.environ, "PYTHONPATH": str(path)},
    )


def test_an_installed_package_brings_a_method(place):
    path = install(place, _MODULE)
    (place / "recipe.yml").write_text("merge: doubled\nmodels: [a, b]\nparameters: {factor: 3}\n")
    assert plait(place, "merge", "recipe.yml", "-o", "out", path=path).returncode == 0
    assert load_file(place / "out" / "model.safetensors")["w"].unique().tolist() == [3.0]
    shown = json.loads(plait(place, "methods", "doubled", "--json", path=path).stdout)
    assert "the first model, times a factor" in json.dumps(shown)
    assert json.loads((place / "out" / "plait.json").read_text())["package"] == "plait-doubled 1.0"
    words = ("merge", "recipe.yml", "-o", "out", "--if-changed", "--overwrite")
    assert "up to date" in plait(place, *words, path=path).stdout
    (path / "plait_doubled.py").write_text(_MODULE.replace("* c.models[0]", "* c.models[0] + 1"))
    assert "1 tensor in" in plait(place, *words, path=path).stdout
    assert load_file(place / "out" / "model.safetensors")["w"].unique().tolist() == [4.0]
    (place / "recipe.yml").write_text("merge: doubled\nmodels: [a, b]\nparameters: {factor: -3}\n")
    wrong = plait(place, "merge", "recipe.yml", "-o", "out", "--overwrite", path=path)
    assert wrong.returncode == 2
    assert "`factor` is -3" in wrong.stderr


def test_a_package_whose_method_fails_is_named_and_stops_no_other_method(place):
    path = install(place, "import no_such_thing\n")
    (place / "recipe.yml").write_text("merge: linear\nmodels: [a, b]\n")
    assert plait(place, "merge", "recipe.yml", "-o", "out", path=path).returncode == 0
    (place / "recipe.yml").write_text("merge: doubled\nmodels: [a, b]\n")
    wrong = plait(place, "merge", "recipe.yml", "-o", "other", path=path)
    assert wrong.returncode == 2
    assert "plait_doubled:METHOD" in wrong.stderr
    assert "no_such_thing" in wrong.stderr


def test_a_recipes_file_runs_only_with_consent(place):
    (place / "recipe.yml").write_text("merge: halved\nmodels: [a, b]\ncode: own.py\n")
    (place / "own.py").write_text(
        "open('was_run', 'w').close()\ndef halved(models, base):\n    return sum(models) / 2\n"
    )
    refused = plait(place, "merge", "recipe.yml", "-o", "out")
    assert refused.returncode == 2
    assert "own.py" in refused.stderr
    assert "--allow-code" in refused.stderr
    assert not (place / "was_run").exists()
    assert not (place / "out").exists()
    assert plait(place, "merge", "recipe.yml", "-o", "out", "--allow-code").returncode == 0
    assert load_file(place / "out" / "model.safetensors")["w"].unique().tolist() == [1.5]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1 / 0\n", "ZeroDivisionError"),
        ("def other(models, base): return models[0]\n", "does not define `halved`"),
        ("def halved(:\n", "SyntaxError"),
        ("halved = 3\n", "its `halved` is a int, not a function"),
        ("def halved(models, base): return models[0][:1]\n", "halved"),
        ("def halved(models, base): raise KeyError('x')\n", "KeyError"),
    ],
)
def test_a_recipes_file_that_fails_is_named(place, text, told):
    (place / "recipe.yml").write_text("merge: halved\nmodels: [a, b]\ncode: own.py\n")
    (place / "own.py").write_text(text)
    wrong = plait(place, "merge", "recipe.yml", "-o", "out", "--allow-code")
    assert wrong.returncode == 2, wrong.stderr
    assert told in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert not (place / "out").exists()

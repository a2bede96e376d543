"""Every example in the documentation runs, and prints what the page says that it prints."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import prepared
import pytest
from fenced import NETWORK, ROOT, Page, examples, shown

import plait
from plait.methods import _registry

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    prepared.prepare(folder)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_run_in_the_order_of_their_page(page, models, tmp_path, monkeypatch, capfd):
    prepared.copy(models, tmp_path)
    monkeypatch.chdir(tmp_path)
    runner, output = Page(), ""
    for example in examples(page):
        if example.language == "text":
            missing = shown(example.text, output)
            assert not missing, f"{example.place}: not printed: {missing}\n{output}"
            continue
        capfd.readouterr()
        if example.language == "toml":  # a package is installed here
            monkeypatch.syspath_prepend(str(tmp_path))
        try:
            runner.run(example)
        except BaseException as error:
            raise AssertionError(
                f"{example.place}: {type(error).__name__}: {error}\n{capfd.readouterr()}"
            ) from error
        output = "".join(capfd.readouterr())
        if example.language == "toml":
            _registry._read.cache_clear()
    _registry._read.cache_clear()


def test_the_first_study_runs_in_a_shell(tmp_path, monkeypatch):
    """Nothing but plait is on the path: the network's module is found beside the suite."""
    monkeypatch.chdir(tmp_path)
    found = examples(ROOT / "docs" / "studies.md")
    files = {example.file: example for example in found if example.file}
    for name in ("small_base.py", "suite.yaml", "study.yaml"):
        Path(name).write_text(files[name].text)
    words = shlex.split(next(each.text for each in found if each.text.startswith("plait run")))
    env = os.environ | {"PYTHONPATH": str(Path(plait.__file__).parents[1])}
    subprocess.run([sys.executable, "small_base.py"], check=True)
    script = str(Path(sys.executable).with_name("plait"))
    done = subprocess.run([script, *words[1:]], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "report: out/report/report.html" in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_says_its_language_and_why_if_it_does_not_run(page):
    text = page.read_text(encoding="utf-8")
    found = examples(page)
    assert text.count("```") == 2 * len(found)
    for example in found:
        assert example.language in {"python", "yaml", "sh", "text", "json", "toml"}, example.place
        assert example.offline or len(example.title) > len(NETWORK), example.place


def test_output_must_be_there_line_by_line():
    assert shown("a b\nc … e\n", "a  b x\nc d e") == []
    assert shown("a c\n", "a b\n") == ["a c"]

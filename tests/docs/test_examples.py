"""Every example in the documentation runs, and prints what the page says that it prints."""

from __future__ import annotations

from pathlib import Path

import prepared
import pytest
from fenced import NETWORK, ROOT, Page, examples, shown

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
    monkeypatch.syspath_prepend(str(tmp_path))
    runner, output = Page(), ""
    for example in examples(page):
        if example.language == "text":
            missing = shown(example.text, output)
            assert not missing, f"{example.place}: not printed: {missing}\n{output}"
            continue
        capfd.readouterr()
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

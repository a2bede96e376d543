"""What the documentation takes from the code is what the code says now."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import typer

import plait
from plait.cli._app import app
from plait.methods import METHODS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))


@pytest.fixture(scope="module")
def pages() -> Any:
    spec = importlib.util.spec_from_file_location("plait_docs_pages", DOCS / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_made_parts_are_current(page, pages):
    text = page.read_text(encoding="utf-8")
    assert pages.made(text) == text, f"{page.name} is out of date: run `make docs`"


def test_all_that_plait_exports_is_there_and_in_the_reference():
    reference = (DOCS / "api.md").read_text(encoding="utf-8").splitlines()
    for name in set(plait.__all__) - {"__version__"}:
        assert callable(getattr(plait, name))
        assert f"::: plait.{name}" in reference


def test_every_page_is_in_the_navigation():
    navigation = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(f": {page.name}\n" in navigation for page in PAGES)


def test_all_methods_and_commands_have_their_place():
    methods = (DOCS / "method-table.md").read_text(encoding="utf-8")
    assert all(f"### `{name}`" in methods for name in METHODS)
    commands = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert [c.name or c.callback.__name__ for c in app.registered_commands] == re.findall(
        r"^## `plait (\S+)`", commands, re.MULTILINE
    )
    assert "`-q, --quiet`" in commands or "`--quiet, -q`" in commands


def test_synopses_have_all_that_a_command_can_not_do_without():
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    for name, command in typer.main.get_command(app).commands.items():
        (found,) = re.findall(rf"^`plait {name}((?: [^`\n]*)?)`$", text, re.MULTILINE)
        words = re.sub(r"\[.*?\]", "", found).split()
        needed = [each for each in command.params if each.required]
        options = [each for each in needed if each.param_type_name == "option"]
        assert all(set(each.opts) & set(words) for each in options), name
        assert len(words) == len(needed) + len(options), name

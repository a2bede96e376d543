"""Whatever a file says, a merge ends with an output that verifies or with one message, soon and in bounds.

`PLAIT_CHAOS=1` draws thousands of damaged files anew; without it some are drawn that are always the same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import bombs
import damage
import hostile
import pytest
from hostile import World, ending
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from victims import NAMES, VICTIMS, recipes

CHAOS = bool(os.environ.get("PLAIT_CHAOS"))


def search(examples: int) -> settings:
    """So many examples; a search for new ones takes many more."""
    count = examples * (100 if CHAOS else 1)
    checks = list(HealthCheck)
    return settings(max_examples=count, derandomize=not CHAOS, database=None, suppress_health_check=checks)


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def place(tmp_path: Path) -> World:
    return hostile.world(tmp_path)


@pytest.mark.parametrize("case", bombs.REFUSED, ids=lambda case: case.__name__)
def test_bombs_are_refused_by_name(place: World, case: Callable[[], bombs.Case]) -> None:
    files, recipe, words = case()
    found = ending(place, files, recipe, *words[:1])
    assert not found.wrong
    assert found.status == 2
    for word in words:
        assert word in found.message


@pytest.mark.parametrize(("files", "recipe"), bombs.HARMLESS.values(), ids=list(bombs.HARMLESS))
def test_what_does_not_matter_is_no_obstacle(place: World, files: dict[str, bytes], recipe: str) -> None:
    found = ending(place, files, recipe)
    assert (found.wrong, found.status) == ("", 0)


@pytest.mark.parametrize("kind", VICTIMS)
def test_damaged_files_end_well(place: World, kind: str) -> None:
    victim = VICTIMS[kind]
    sound = victim.make(place)
    content = sound if isinstance(sound, bytes) else hostile.as_json(sound)
    if kind != "card":
        for recipe in victim.recipes:
            found = ending(place, {victim.file: content}, recipe)
            assert (found.wrong, found.status) == ("", 0)

    @search(12)
    @given(content=victim.damaged(sound), recipe=st.sampled_from(victim.recipes))
    def damaged(content: bytes, recipe: str) -> None:
        assert not ending(place, {victim.file: content}, recipe, "victim", "tokenizer made").wrong

    damaged()


def test_damaged_recipes_end_well(tmp_path: Path) -> None:
    place = hostile.world(tmp_path, NAMES)

    @search(40)
    @given(recipe=st.sampled_from(recipes()).flatmap(damage.recipes))
    def damaged(recipe: bytes) -> None:
        words = re.findall(r"[\w.-]{3,}", recipe.decode("utf-8", "replace"))
        assert not ending(place, {}, recipe, "recipe.yml", "no such file", *words).wrong

    damaged()

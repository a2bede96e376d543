"""Files are named by members and tasks, whatever these are called."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from plait.tasks import file_name, folder_name
from plait.tasks._saved import head_folders

#: All characters, halves of some (`\ud83d`) and those that stand for bytes that are no text (`\udcff`) too.
NAMES = st.text(st.characters() | st.characters(categories=["Cs"]), max_size=60)


@given(st.lists(NAMES, unique=True, max_size=5))
def test_names_are_files_of_their_own(names):
    for name in (file_name, folder_name):
        assert len({name(own) for own in names}) == len(names)
        assert all(name(own).isascii() and len(name(own)) <= 200 and "/" not in name(own) for own in names)


@given(NAMES)
def test_a_short_name_is_read_from_its_file(name):
    if "=" not in (own := file_name(name)):
        assert unquote(own, errors="surrogatepass") == name


@pytest.mark.parametrize("name", ["\ud83d", "a\udcffb", "\udc80" * 300, "\ud83d\ude00"])
def test_heads_of_tasks_with_half_a_character_are_found(tmp_path: Path, name: str):
    first, *others = head_folders(tmp_path, name)
    first.mkdir()
    torch.save(nn.Linear(1, 1).state_dict(), first / "head")
    assert [path for path in [first, *others] if path.is_dir()] == [first]

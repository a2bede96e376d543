"""Progress is for terminals: a bar there, nothing in a pipe, and one JSON document with --json."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for name in "ab":
        (tmp_path / name).mkdir()
        save_file({f"w{i}": torch.ones(500, 1000) for i in range(20)}, tmp_path / name / "model.safetensors")
    (tmp_path / "recipe.yml").write_text("merge: linear\nmodels: [a, b]\n")
    monkeypatch.chdir(tmp_path)
    return [sys.executable, "-c", "from plait.cli import main; main()", "merge", "recipe.yml", "-o", "out"]


def on_a_terminal(command: list[str]) -> str:
    """What the command writes to a terminal of its own."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=environment)
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 4096):
            said += part
    except OSError:  # Linux's word for a terminal whose other side is closed
        pass
    os.close(ours)
    assert process.wait(300) == 0
    return said.decode()


def test_a_terminal_gets_a_bar_with_bytes_and_time(command):
    said = on_a_terminal(command)
    assert "40.0/40.0 MB" in said
    assert re.search(r" [MG]B/s", said)
    assert said.count("\x1b[?25l") == said.count("\x1b[?25h")  # the cursor comes back


def test_a_pipe_gets_no_bar(command):
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert "\x1b" not in found.stdout + found.stderr
    assert "/s" not in found.stderr


@pytest.mark.parametrize("terminal", [True, False])
def test_json_is_one_document(command, terminal):
    command.append("--json")
    if terminal:
        said = on_a_terminal(command)
        assert "\x1b" not in said
    else:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    assert isinstance(json.loads(said), dict)

"""Examples of the documentation: found in its pages, and run."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from plait.engine import RunOptions, build_plan, in_memory
from plait.errors import InputError
from plait.recipe import load_recipe
from plait.study import load_study
from plait.tasks import load_suite

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^( *)```(\S*)(?: title=\"([^\"]*)\")?[ ]*\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)
_STATUS = re.compile(r"# exit status (\d+)\s*$")
NETWORK = "needs the network: "
WRONG = ": wrong on purpose"
LM_TASK = ": a task file of lm-eval"


@dataclass(frozen=True)
class Example:
    """A fenced block.

    Attributes:
        place: page and line.
        language: its first word.
        title: what its `title` says.
        text: what it holds.
    """

    place: str
    language: str
    title: str
    text: str

    @property
    def offline(self) -> bool:
        return not self.title.startswith(NETWORK)

    @property
    def file(self) -> str:
        """The file that it is, if its title names one."""
        name = self.title.removesuffix(WRONG).removesuffix(LM_TASK)
        return name if self.offline else ""


def examples(page: Path) -> list[Example]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        body = textwrap.dedent(match[4])
        found.append(Example(f"{page.relative_to(ROOT)}:{line}", match[2], match[3] or "", body))
    return found


def commands(text: str) -> Iterator[tuple[list[str], int]]:
    """The words of each line of a shell block, and the exit status that it says it has."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            status = _STATUS.search(line)
            yield words, int(status[1]) if status else 0


class Page:
    """Runs the examples of one page, one after the other, in the folder that Python is in."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "example"}

    def run(self, example: Example) -> None:
        """Run an example, or check what can be checked of one that needs the network."""
        getattr(self, f"_{example.language}")(example)

    def _python(self, example: Example) -> None:
        code = compile(example.text, example.place, "exec")
        if example.file:
            Path(example.file).write_text(example.text, encoding="utf-8")
        if example.offline:
            exec(code, self.names)
            return
        import plait

        tree = ast.walk(ast.parse(example.text))
        used = [n.attr for n in tree if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "plait"]
        assert used
        assert set(used) <= set(plait.__all__)

    def _yaml(self, example: Example) -> None:
        if example.file:
            Path(example.file).write_text(example.text, encoding="utf-8")
        if example.title.endswith(LM_TASK):
            assert "output_type" in yaml.safe_load(example.text)
            return
        if example.file and "study" in yaml.safe_load(example.text):
            assert load_study(example.file).ways
            return
        if example.file and "suite" in yaml.safe_load(example.text):
            suite = load_suite(example.file)
            assert not suite.missing
            suite.tasks[0].with_body(suite.base())
            return
        try:
            recipe = load_recipe(example.text + "\n")[-1]
            if example.offline:
                assert in_memory(build_plan(recipe, RunOptions(threads=1, allow_code=True)))
        except InputError:
            if not example.title.endswith(WRONG):
                raise
        else:
            assert not example.title.endswith(WRONG)

    def _sh(self, example: Example) -> None:
        for words, expected in commands(example.text):
            if example.offline:
                status = _status(words)
                assert status == expected, f"{shlex.join(words)}: exit status {status}"
            else:
                _parse(words)

    def _json(self, example: Example) -> None:
        said = json.loads(example.text)
        if example.file:
            whole = json.loads(Path(example.file).read_text(encoding="utf-8"))
            assert said == {key: whole.get(key) for key in said}

    def _toml(self, example: Example) -> None:
        """A package's declaration, as installing the package would record it."""
        try:
            import tomllib
        except ModuleNotFoundError:
            import tomli as tomllib
        project = tomllib.loads(example.text)["project"]
        folder = Path(f"{project['name'].replace('-', '_')}-{project['version']}.dist-info")
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1\n")
        lines = []
        for group, points in project["entry-points"].items():
            lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
        (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")


def shown(text: str, output: str) -> list[str]:
    """The lines of a block of output that the output lacks; `…` stands for anything."""
    printed = " ".join(output.split())
    patterns = [
        (line, r".*?".join(map(re.escape, " ".join(line.split()).split("…")))) for line in text.splitlines()
    ]
    return [line for line, pattern in patterns if not re.search(pattern, printed)]


def _status(words: list[str]) -> int:
    if words[0] == "plait":
        from plait.cli import main

        try:
            main(words[1:])
        except SystemExit as error:
            return int(error.code or 0)
    if words[0] == "make":  # what it would do is enough: the targets install packages
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
        return subprocess.run(
            ["make", "-n", *words[1:]], cwd=ROOT, env=clean, capture_output=True, check=False
        ).returncode
    if words[0] == "python":
        return subprocess.run([sys.executable, *words[1:]], check=False).returncode
    raise AssertionError(f"`{words[0]}` is no command that examples run")


def _parse(words: list[str]) -> None:
    """The command and its options exist."""
    if words[0] == "pip":
        assert words[1] == "install"
        return
    assert words[0] == "plait"
    from typer.main import get_command

    from plait.cli._app import app

    group: Any = get_command(app)
    with group.make_context("plait", words[1:]) as context:
        name, command, rest = group.resolve_command(context, words[1:])
        command.make_context(name, rest, parent=context)

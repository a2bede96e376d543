"""The command line as its users meet it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from plait.cli import main


def plait(*words: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    return int(caught.value.code or 0)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    for seed, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        generator = torch.Generator().manual_seed(seed)
        save_file({"w": torch.randn(4, 6, generator=generator)}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text("{}")
    path = tmp_path / "recipe.yml"
    path.write_text(f"merge: linear\nmodels: [{tmp_path / 'a'}, {tmp_path / 'b'}]\n")
    return path


def test_help_needs_no_torch():
    code = (
        "import sys\nfrom plait.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit('torch' in sys.modules or 'numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_python_m_plait_is_plait():
    done = subprocess.run(
        [sys.executable, "-m", "plait", "merge", "nope.yml", "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("plait: nope.yml")


def test_merge_verify_diff(recipe, tmp_path, capsys):
    out = tmp_path / "out"
    assert plait("merge", recipe, "--dry-run") == 0
    assert not out.exists()
    assert plait("merge", recipe, out, "--quiet") == 0
    assert plait("verify", out) == 0
    assert plait("diff", out, out) == 0
    assert plait("diff", out, tmp_path / "a") == 3
    capsys.readouterr()
    assert plait("merge", recipe, "-o", out, "--if-changed", "--json") == 0
    assert json.loads(capsys.readouterr().out)["unchanged"] is True


def test_a_dry_run_says_how_each_tensor_comes_to_be(tmp_path, capsys):
    kept = {"count": torch.tensor([1, 2]), "gone": torch.ones(2)}
    for name in "cd":
        layers = {f"layers.{i}.mlp.w": torch.ones(3, 4) for i in range(2)}
        (tmp_path / name).mkdir()
        save_file({**layers, **kept}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text('{"num_hidden_layers": 2}')
    c, d = tmp_path / "c", tmp_path / "d"
    recipe = tmp_path / "how.yml"
    recipe.write_text(f"merge: linear\nmodels: [{c}, {d}]\nexclude: [gone]\ndtype: float16\n")
    assert plait("merge", recipe, "--dry-run") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["layers.1.mlp.w", "merge", "float16", "[3,", "4]", f"{c},", str(d)] in lines
    assert ["count", "copy", "int64", "[2]", str(c)] in lines
    assert ["gone", "excluded"] in lines
    recipe.write_text(
        f"merge: passthrough\nexclude: [gone, count]\nslices:\n"
        f"- sources: [{{model: {c}, layer_range: [0, 2]}}]\n"
        f"- sources: [{{model: {d}, layer_range: [1, 2]}}]\n"
    )
    assert plait("merge", recipe, "--dry-run") == 0
    assert f"{d}: layers.1.mlp.w" in capsys.readouterr().out


def test_bad_input_is_one_message_and_status_2(recipe, tmp_path, capsys):
    assert plait("merge", tmp_path / "nope.yml", tmp_path / "out") == 2
    assert "nope.yml" in capsys.readouterr().err
    assert plait("merge", recipe) == 2
    assert "no output" in capsys.readouterr().err
    assert plait("merge", recipe, tmp_path / "out", "--memory", "much") == 2
    assert "--memory" in capsys.readouterr().err
    assert plait("methods", "tise") == 2
    assert "did you mean `ties`?" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words", [[], ["merge"], ["nope"], ["verify", "x", "--nope"], ["merge", "r", "--threads", "x"]]
)
def test_words_that_make_no_command_are_the_users_fault(words, capsys):
    assert plait(*words) == 2
    said = capsys.readouterr().err
    assert "Usage: plait" in said if not words else "--help" in said
    assert "bug in plait" not in said


def test_inspect_and_methods_print_one_line_per_thing(tmp_path, recipe, capsys):
    assert plait("inspect", tmp_path / "a") == 0
    said = capsys.readouterr().out
    assert ["w", "[4,", "6]", "float32", "24", "–"] in [line.split() for line in said.splitlines()]
    assert "1 tensors, 24 parameters" in said
    assert plait("methods") == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert {"ties", "linear", "breadcrumbs_ties"} <= listed
    assert plait("methods", "ties") == 0
    assert "density: a number from 0 to 1 per model; default 0.2, mergekit's 1" in capsys.readouterr().out


def test_inspect_and_methods_speak_json(tmp_path, recipe, capsys):
    assert plait("inspect", tmp_path / "a", "--json") == 0
    assert json.loads(capsys.readouterr().out)["tensors"][0]["name"] == "w"
    assert plait("methods", "ties", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "ties"


def test_mergekits_flags_are_taken(recipe, tmp_path, capsys):
    assert plait("merge", recipe, tmp_path / "out", "--lazy-unpickle", "--random-seed", "3") == 0
    assert json.loads((tmp_path / "out" / "plait.json").read_text())["seed"] == 3


def test_an_interrupt_that_a_library_wraps_is_still_an_interrupt():
    program = """if True:
        import atexit, signal
        from plait.cli import _app, main

        # What starts tests in the background may let them ignore Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        atexit.register(print, "the interpreter's end was waited for")

        def wraps(words, **options):
            try:
                signal.raise_signal(signal.SIGINT)
            except BaseException as error:
                raise RuntimeError("could not build") from error

        _app.app = wraps
        main(["methods"])
    """
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert (found.returncode, found.stderr.strip(), found.stdout) == (130, "plait: interrupted", "")


def test_names_of_tensors_are_shown_as_they_are_and_steer_no_terminal(tmp_path, capsys):
    name = "a[/b][red]:smile:\x1b[2Jw"
    for folder, value in (("c", 0.0), ("d", 1.0)):
        (tmp_path / folder).mkdir()
        save_file({name: torch.full((2,), value)}, tmp_path / folder / "model.safetensors")
    shown = r"a[/b][red]:smile:\x1b[2Jw"
    assert plait("inspect", tmp_path / "c") == 0
    assert shown in capsys.readouterr().out
    assert plait("diff", tmp_path / "c", tmp_path / "d") == 3
    assert shown in capsys.readouterr().out
    recipe = tmp_path / "odd.yml"
    recipe.write_text(f"merge: linear\nmodels: [{tmp_path / 'c'}, {tmp_path / 'a'}]\n")
    (tmp_path / "a").mkdir()
    save_file({"w": torch.ones(2)}, tmp_path / "a" / "model.safetensors")
    assert plait("merge", recipe, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert shown in said
    assert "\x1b" not in said

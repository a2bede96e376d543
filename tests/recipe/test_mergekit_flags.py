from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from plait.cli import main
from plait.recipe._mergekit_flags import MERGEKIT_FLAGS, translate_mergekit_flags


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["r.yaml", "out", "--cuda"], ["r.yaml", "out", "--device", "cuda"]),
        (["--out-shard-size", "5B"], ["--max-shard-size", "5GB"]),
        (["--out-shard-size=200m"], ["--max-shard-size", "200MB"]),
        (["--out-shard-size=7k"], ["--max-shard-size", "7KB"]),
        (["--out-shard-size", "5GB"], ["--max-shard-size", "5GB"]),
        (["--out-shard-size", "12345"], ["--max-shard-size", "12345"]),
        (["--random-seed", "7"], ["--seed", "7"]),
        (["-j", "4"], ["--threads", "4"]),
        (["-j4", "--num-threads=2"], ["--threads", "4", "--threads", "2"]),
        (["--quiet", "--no-cuda", "--copy-tokenizer"], ["--quiet"]),
        (["--device", "cuda:1", "--out-path=out"], ["--device", "cuda:1", "--out", "out"]),
        (["--memory", "1GB", "--", "--cuda"], ["--memory", "1GB", "--", "--cuda"]),
    ],
)
def test_flags_that_mean_something_here_are_translated(words, expected):
    assert translate_mergekit_flags(words) == (expected, [])


def test_flags_without_effect_are_named_once_each():
    words = ["r.yaml", "--lora-merge-cache", "/tmp/x", "-vvv", "--allow-crimes", "-v", "--trust-remote-code"]
    out, notes = translate_mergekit_flags(words)
    assert out == ["r.yaml"]
    assert [note.partition(":")[0] for note in notes] == [
        "`--lora-merge-cache`",
        "`-v`",
        "`--allow-crimes`",
        "`--trust-remote-code`",
    ]


def test_a_device_chosen_by_mergekit_is_the_cpu():
    words, notes = translate_mergekit_flags(["--device", "auto", "r.yaml"])
    assert words == ["r.yaml"]
    assert notes[0].startswith("`--device auto`: plait computes on the CPU")


def test_a_flag_whose_value_is_missing_is_left_for_the_command_line_to_refuse():
    assert translate_mergekit_flags(["--random-seed"]) == (["--random-seed"], [])


def test_every_switch_has_its_opposite():
    switches = [
        f for f, d in MERGEKIT_FLAGS.items() if not d.takes_value and f.startswith("--") and "--no-" not in f
    ]
    assert len(switches) > 10
    assert all(f"--no-{f[2:]}" in MERGEKIT_FLAGS for f in switches if f != "--gpu-rich")


#: What 0.1.5 lists under `--help`; `make bench-peer` asks mergekit itself.
SWITCHES = (
    *("allow-crimes", "unsafe-truncate-embeddings", "trust-remote-code", "quiet", "cuda", "low-cpu-memory"),
    *("lazy-unpickle", "read-to-gpu", "multi-gpu", "async-write", "copy-tokenizer", "clone-tensors"),
    *("write-model-card", "safe-serialization", "lazy"),
)
VALUES = {
    "--transformers-cache": "x",
    "--lora-merge-cache": "x",
    "--lora-merge-dtype": "float32",
    "--random-seed": "3",
    "--device": "cpu",
    "--num-threads": "2",
    "-j": "2",
    "--write-threads": "1",
    "--out-shard-size": "2B",
    "--intermediate-dir": "x",
    "-I": "x",
    "--out-path": "out",
}
FLAGS = (
    [[f"--{name}"] for name in SWITCHES] + [[f"--no-{name}"] for name in SWITCHES] + [["-v"], ["--gpu-rich"]]
)
FLAGS += [[name, value] for name, value in VALUES.items()]


def test_every_flag_of_mergekits_is_known_and_no_other():
    assert sorted(MERGEKIT_FLAGS) == sorted(words[0] for words in FLAGS)


@pytest.mark.parametrize("words", FLAGS, ids=lambda words: words[0])
def test_every_flag_makes_a_command_that_plait_takes(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    save_file({"w": torch.ones(2, 3)}, tmp_path / "a.safetensors")
    Path("recipe.yml").write_text("merge_method: passthrough\nmodels: [{model: a.safetensors}]\n")
    with pytest.raises(SystemExit) as caught:
        main(["merge", "recipe.yml", *words, "--dry-run"])
    said = capsys.readouterr()
    needs_cuda = "cuda" in translate_mergekit_flags(words)[0]
    if needs_cuda and not torch.cuda.is_available():
        assert caught.value.code == 2
        assert "the device `cuda` can't be used" in said.err
    else:
        assert caught.value.code == 0
        assert "passthrough" in said.out
    quiet = not translate_mergekit_flags(words)[1]
    assert (words[0] not in said.err) is quiet

from __future__ import annotations

import pytest

from plait.recipe._mergekit_flags import MERGEKIT_FLAGS, translate_mergekit_flags


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["r.yaml", "out", "--cuda"], ["r.yaml", "out", "--device", "cuda"]),
        (["--out-shard-size", "5B"], ["--max-shard-size", "5GB"]),
        (["--out-shard-size=200m"], ["--max-shard-size", "200MB"]),
        (["--out-shard-size=7k"], ["--max-shard-size", "7KB"]),
        (["--out-shard-size", "12345"], ["--max-shard-size", "12345"]),
        (["--random-seed", "7"], ["--seed", "7"]),
        (["-j", "4"], ["--threads", "4"]),
        (["-j4", "--num-threads=2"], ["--threads", "4", "--threads", "2"]),
        (["--quiet", "--no-cuda", "--copy-tokenizer"], ["--quiet"]),
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


def test_a_flag_whose_value_is_missing_is_left_for_the_command_line_to_refuse():
    assert translate_mergekit_flags(["--random-seed"]) == (["--random-seed"], [])


def test_every_switch_has_its_opposite():
    switches = [
        f for f, d in MERGEKIT_FLAGS.items() if not d.takes_value and f.startswith("--") and "--no-" not in f
    ]
    assert len(switches) > 10
    assert all(f"--no-{f[2:]}" in MERGEKIT_FLAGS for f in switches if f != "--gpu-rich")

"""Folders: what lies in them is found, and what is wrong with them is said, all of it at once."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from tiny import MODELS

from plait.checkpoint import content_hash, open_checkpoint
from plait.errors import InputError, InputErrors

INDEX = "model.safetensors.index.json"


def sharded(folder: Path, shards: dict[str, dict[str, torch.Tensor]], weight_map: object = None) -> Path:
    folder.mkdir(exist_ok=True)
    for name, tensors in shards.items():
        save_file(tensors, folder / name)
    if weight_map is None:
        weight_map = {tensor: shard for shard, tensors in shards.items() for tensor in tensors}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def message(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_checkpoint(folder)
    return str(caught.value)


ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.mark.parametrize("name", MODELS)
def test_sharded_and_whole_folders_hold_the_same(zoo, name: str) -> None:
    whole = open_checkpoint(zoo.folder(name))
    shards = open_checkpoint(zoo.folder(name, max_shard_size="5KB"))
    assert len(shards.fingerprint) > 1
    assert list(whole.fingerprint) == ["model.safetensors"]
    assert set(whole) == set(shards)
    assert content_hash(whole) == content_hash(shards, threads=3)
    assert whole.config["model_type"]
    assert whole.folder == zoo.folder(name)


def test_values_are_those_of_the_file(zoo) -> None:
    opened = open_checkpoint(str(zoo.folder("bert")))
    for name, tensor in load_file(zoo.folder("bert") / "model.safetensors").items():
        assert torch.equal(opened[name].read(), tensor)
    with pytest.raises(KeyError):
        opened["nothing"]


def test_sidecars_are_every_file_that_is_no_weight(zoo, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(zoo.folder("llama"), folder)
    kept = ["tokenizer.json", "1_Pooling/config.json", "LICENSE", "chat_template.jinja", "vocab.txt"]
    kept += ["modeling_own.py", "docs/README.md", "model.safetensors.index.json.bak"]
    left = ["README.md", "plait.json", ".git/HEAD", ".gitattributes", "pytorch_model.bin", "onnx/model.onnx"]
    left += ["onnx/model.onnx_data", "checkpoint-5/trainer_state.json", "tf_model.h5", "training_args.bin"]
    left += ["pytorch_model.bin.index.json"]
    for name in kept + left:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    found = {sidecar.name for sidecar in open_checkpoint(folder).sidecars}
    assert found == {"config.json", "generation_config.json", *kept}


def test_model_files_win_over_others(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    save_file({"b": torch.ones(1)}, tmp_path / "consolidated.safetensors")
    torch.save({"c": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    assert list(open_checkpoint(tmp_path)) == ["a"]


def test_several_candidates_without_a_known_name_are_an_error(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "one.safetensors")
    assert list(open_checkpoint(tmp_path)) == ["a"]
    save_file({"b": torch.ones(1)}, tmp_path / "two.safetensors")
    assert "`one.safetensors`, `two.safetensors`" in message(tmp_path)


def test_shards_without_an_index(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / ONE)
    assert f"shards are missing: `{TWO}`" in message(tmp_path)
    save_file({"b": torch.ones(1)}, tmp_path / TWO)
    assert list(open_checkpoint(tmp_path)) == ["a", "b"]
    save_file({"a": torch.ones(1)}, tmp_path / TWO)
    assert f"`a` also lie in `{ONE}`" in message(tmp_path)


def test_every_problem_of_a_sharded_folder_is_reported_at_once(tmp_path: Path) -> None:
    shards = {
        "a-1.safetensors": {"x": torch.ones(1), "both": torch.ones(1)},
        "a-2.safetensors": {"both": torch.ones(1), "stray": torch.ones(1)},
    }
    weight_map = {
        "x": "a-1.safetensors",
        "both": "a-1.safetensors",
        "absent": "a-2.safetensors",
        "y": "gone.safetensors",
        "z": "broken.safetensors",
    }
    folder = sharded(tmp_path / "m", shards, weight_map)
    (folder / "broken.safetensors").write_bytes(b"\x05")
    (folder / "config.json").write_text("{nonsense")
    with pytest.raises(InputErrors) as caught:
        open_checkpoint(folder)
    text = str(caught.value)
    assert "config.json: this is not valid JSON" in text
    assert "`gone.safetensors` is missing" in text
    assert "broken.safetensors: it has 1 bytes" in text
    assert "`absent` lie in `a-2.safetensors`, which lacks them" in text
    assert "`a-2.safetensors` holds `stray`, which" in text
    assert "same tensor in two shards: `both` in `a-1.safetensors`, `a-2.safetensors`" in text
    assert len(caught.value.problems) == 6


@pytest.mark.parametrize(
    "shard",
    ["../out.safetensors", "/etc/x.safetensors", "a/../../x.safetensors", "C:\\x.safetensors", "..\\x.bin"],
)
def test_an_index_that_points_outside_is_refused(tmp_path: Path, shard: str) -> None:
    save_file({"x": torch.ones(1)}, tmp_path / "out.safetensors")
    assert "outside of the folder" in message(sharded(tmp_path / "m", {}, {"x": shard}))


@pytest.mark.parametrize("weight_map", [[], {"x": 3}, {"x": ""}, {"x": "config.json"}, "x"])
def test_an_index_of_wrong_types_is_refused(tmp_path: Path, weight_map: object) -> None:
    assert INDEX in message(sharded(tmp_path / "m", {}, weight_map))


def test_a_shard_that_the_index_forgets(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "m", {ONE: {"a": torch.ones(1)}, TWO: {"b": torch.ones(1)}}, {"a": ONE})
    assert f"does not name the shards `{TWO}`" in message(folder)


def test_folders_without_weights_say_what_they_have(tmp_path: Path) -> None:
    assert "holds no weights" in message(tmp_path)
    (tmp_path / "tf_model.h5").write_text("")
    assert "another framework" in message(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    assert "not an object" in message(tmp_path)


def test_the_fingerprint_changes_with_the_file_and_the_hash_with_the_values(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.ones(3), "y": torch.zeros(2)}, path)
    first = open_checkpoint(path)
    prints, content = dict(first.fingerprint), content_hash(first)
    save_file({"x": torch.ones(3), "y": torch.zeros(2) + 1}, path)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))  # file systems tell times some milliseconds apart
    second = open_checkpoint(path)
    assert second.fingerprint != prints
    assert content_hash(second) != content
    assert content_hash(open_checkpoint({"y": torch.ones(2), "x": torch.ones(3)})) == content_hash(second)


def test_names_that_save_model_left_out_are_tied(tmp_path: Path) -> None:
    model = torch.nn.Module()
    model.a, model.b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    model.b.weight = model.a.weight
    save_model(model, str(tmp_path / "model.safetensors"))
    opened = open_checkpoint(tmp_path)
    assert {*opened.tied, *opened.tied.values()} == {"a.weight", "b.weight"}
    assert len(opened) == 3


def test_sub_folders_with_heads_alone_are_not_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_file({"w": torch.ones(1)}, tmp_path / "model.safetensors")
    for task in ("digits", "letters", "both"):
        (tmp_path / task).mkdir()
        save_file({"weight": torch.ones(2)}, tmp_path / task / "head.safetensors")
    assert list(open_checkpoint(tmp_path)) == ["w"]
    assert not caplog.records
    save_file({"w": torch.ones(1)}, tmp_path / "both" / "model.safetensors")
    open_checkpoint(tmp_path)
    assert "sub-folders both are no part" in caplog.text


def test_sub_folders_of_a_modules_list_belong_to_the_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_file({"w": torch.ones(1)}, tmp_path / "model.safetensors")
    for name in ["1_Pooling", "2_Dense", "old"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    save_file({"linear.weight": torch.full((2,), 3.0)}, tmp_path / "2_Dense" / "model.safetensors")
    save_file({"w": torch.ones(1)}, tmp_path / "old" / "model.safetensors")
    modules = [{"path": path} for path in ("", "1_Pooling", "2_Dense")]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    opened = open_checkpoint(tmp_path)
    assert list(opened) == ["w", "2_Dense/linear.weight"]
    assert opened["2_Dense/linear.weight"].read().tolist() == [3, 3]
    assert opened["2_Dense/linear.weight"].name == "2_Dense/linear.weight"
    assert set(opened.fingerprint) == {"model.safetensors", "2_Dense/model.safetensors"}
    assert "2_Dense/config.json" in {sidecar.name for sidecar in opened.sidecars}
    assert "sub-folders old are no part" in caplog.text
    for bad in ("[1]", "{}", "[", '[{"path": "../other"}]'):
        (tmp_path / "modules.json").write_text(bad)
        assert "modules.json" in message(tmp_path)

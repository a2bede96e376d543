"""Planned shards and saved checkpoints are what safetensors and transformers read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from plait.checkpoint import DTYPES, Sidecar, index_json, open_checkpoint, plan_shards, save_checkpoint
from plait.errors import InputError

shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
dtypes = st.sampled_from(sorted(set(DTYPES.values()), key=str))
layouts = st.lists(st.tuples(dtypes, shapes), max_size=8)


def nbytes(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel() * dtype.itemsize


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layout=layouts,
    limit=st.integers(1, 300),
    metadata=st.dictionaries(st.text(max_size=3), st.text(max_size=3)),
)
def test_files_written_by_plan_open_and_hold_every_tensor_once(
    tmp_path: Path, layout: list[tuple[torch.dtype, tuple[int, ...]]], limit: int, metadata: dict[str, str]
) -> None:
    tensors = {f"t.{k}": entry for k, entry in enumerate(layout)}
    shards = plan_shards(
        ((n, d, s) for n, (d, s) in tensors.items()), max_shard_size=limit, metadata=metadata
    )
    found: list[str] = []
    for shard in shards:
        path = tmp_path / shard.name
        data = os.urandom(shard.size - len(shard.header))
        path.write_bytes(shard.header + data)
        opened = open_checkpoint(path)
        assert len(shard.header) % 8 == 0
        assert set(opened) == set(shard.offsets)
        content = shard.header + data
        for name, (start, stop) in shard.offsets.items():
            dtype, shape = tensors[name]
            assert (opened[name].dtype, opened[name].shape) == (dtype, shape)
            assert start % dtype.itemsize == 0
            flat = opened[name].read_flat(0, torch.Size(shape).numel())
            assert bytes(flat.view(torch.uint8).numpy()) == content[start:stop]
        filled = sum(nbytes(*tensors[name]) for name in shard.offsets)
        assert filled <= limit or sum(nbytes(*tensors[name]) > 0 for name in shard.offsets) == 1
        found += shard.offsets
    assert sorted(found) == sorted(tensors)


def test_names_and_index_are_hugging_faces() -> None:
    entries = [(f"t{k}", torch.float32, (10,)) for k in range(5)]
    one = plan_shards(entries)
    assert [shard.name for shard in one] == ["model.safetensors"]
    assert index_json(one) is None
    three = plan_shards(entries, max_shard_size=80)
    assert [shard.name for shard in three] == [f"model-0000{k}-of-00003.safetensors" for k in (1, 2, 3)]
    index = json.loads(index_json(three) or "")
    assert index["metadata"] == {"total_size": 200}
    assert index["weight_map"]["t4"] == "model-00003-of-00003.safetensors"
    named = plan_shards(entries, stem="diffusion_pytorch_model")
    assert named[0].name == "diffusion_pytorch_model.safetensors"


def test_a_tensor_over_the_limit_gets_a_file_of_its_own() -> None:
    sizes = {"a": 10, "big": 1000, "b": 10, "c": 10}
    shards = plan_shards([(n, torch.uint8, (s,)) for n, s in sizes.items()], max_shard_size=100)
    assert [list(shard.offsets) for shard in shards] == [["a"], ["big"], ["b", "c"]]


def test_what_can_not_be_written_is_refused() -> None:
    with pytest.raises(InputError, match="`x` would be written twice"):
        plan_shards([("x", torch.float32, ()), ("x", torch.float32, ())])
    with pytest.raises(InputError, match=r"tensor `x`: safetensors has no type torch\.complex128"):
        plan_shards([("x", torch.complex128, ())])


def test_no_tensors_make_an_empty_file() -> None:
    (shard,) = plan_shards([])
    assert shard.size == len(shard.header)


def test_a_saved_checkpoint_reads_back(tmp_path: Path) -> None:
    tensors = {
        "t": torch.randn(4, 3).t(),
        "half": torch.randn(5).to(torch.bfloat16),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 2),
        "flag": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    (tmp_path / "tok.json").write_text("tok")
    folder = save_checkpoint(
        tmp_path / "deep" / "out",
        tensors,
        config={"model_type": "x"},
        sidecars=[Sidecar("sub/tok.json", tmp_path / "tok.json")],
        max_shard_size=40,
    )
    opened = open_checkpoint(folder)
    assert set(opened) == set(tensors)
    assert opened.config == {"model_type": "x"}
    assert (folder / "sub" / "tok.json").read_text() == "tok"
    for name, tensor in tensors.items():
        assert torch.equal(opened[name].read(), tensor)
    for file in folder.glob("*.safetensors"):
        load_file(file)
        with safe_open(file, "pt") as reader:
            assert reader.metadata() == {"format": "pt"}
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"out"}


def test_transformers_loads_what_was_saved(zoo, tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    opened = open_checkpoint(zoo.folder("llama"))
    save_checkpoint(
        tmp_path / "out",
        {n: t.read() for n, t in opened.items()},
        sidecars=opened.sidecars,
        max_shard_size=8000,
    )
    loaded = LlamaForCausalLM.from_pretrained(tmp_path / "out")
    tokens = torch.arange(10)[None]
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, zoo.model("llama")(tokens).logits)


def test_a_target_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="not an empty folder"):
        save_checkpoint(tmp_path, {"x": torch.ones(1)})
    with pytest.raises(InputError, match="not an empty folder"):
        save_checkpoint(tmp_path / "file", {"x": torch.ones(1)})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    missing = [Sidecar("a.json", tmp_path / "gone.json")]
    with pytest.raises(InputError, match="writing failed"):
        save_checkpoint(tmp_path / "out", {"x": torch.ones(1)}, sidecars=missing)
    assert list(tmp_path.iterdir()) == []

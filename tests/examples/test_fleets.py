"""The fleets among the examples run, in a short form."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import fleet_adapters
import fleet_tenants
import plait


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_tenants_learn_their_rules(capsys):
    assert fleet_tenants.main(["--tenants", "12", "--epochs", "40"]) < 0.3
    assert "trained again: [" in capsys.readouterr().out


class Letters:
    """A tokenizer of bytes."""

    eos_token_id = pad_token_id = 0
    bos_token_id = None
    name_or_path = "bytes"

    def __call__(self, text, **_):
        ids = list(text.encode())
        return {"input_ids": ids, "attention_mask": [1] * len(ids)}

    def decode(self, ids, **_):
        return bytes(ids).decode(errors="ignore")


def test_adapters_of_a_small_model_are_saved_and_open(tmp_path: Path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    base = LlamaForCausalLM(LlamaConfig(vocab_size=256, **sizes, **heads))
    base.save_pretrained(tmp_path / "base")
    fleet = fleet_adapters.fleet(base, Letters(), ("email", "json"), steps=3, length=32).fit()
    assert fleet.status == {"email": "finished", "json": "finished"}
    folders = fleet.save(tmp_path / "out", base=str(tmp_path / "base"))
    opened = plait.open(f"{tmp_path / 'base'}+{folders[1]}")
    name = "model.layers.0.self_attn.q_proj.weight"
    change = opened[name].read() - base.state_dict()[name]
    assert change.norm() > 0


@pytest.mark.slow
def test_adapters_of_smollm2(tmp_path: Path, capsys):
    fleet_adapters.main([str(tmp_path / "out"), "--steps", "2", "--members", "2"])
    assert capsys.readouterr().out.count("bits per byte") == 2
    assert (tmp_path / "out" / "email" / "adapter_model.safetensors").is_file()

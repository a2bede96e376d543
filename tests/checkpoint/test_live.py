"""Live models open under the names and with the values that saving them writes."""

from __future__ import annotations

import pytest
import torch
from tiny import MODELS
from torch import nn

from plait.checkpoint import open_checkpoint
from plait.errors import InputError


@pytest.mark.parametrize("name", MODELS)
def test_a_live_model_equals_its_saved_folder(zoo, name: str) -> None:
    live, saved = open_checkpoint(zoo.model(name)), open_checkpoint(zoo.folder(name))
    assert set(live) == set(saved)
    for key in saved:
        assert live[key].shape == saved[key].shape
        assert live[key].dtype == saved[key].dtype
        assert torch.equal(live[key].read(), saved[key].read()), key
    assert live.config["model_type"] == saved.config["model_type"]
    assert live.config["architectures"] == saved.config["architectures"]


def test_tied_names_of_live_models(zoo) -> None:
    assert open_checkpoint(zoo.model("llama_tied")).tied == {"lm_head.weight": "model.embed_tokens.weight"}
    assert open_checkpoint(zoo.model("llama")).tied == {}
    assert open_checkpoint(zoo.model("gpt2")).tied == {"lm_head.weight": "transformer.wte.weight"}
    assert set(open_checkpoint(zoo.model("t5")).tied.values()) == {"shared.weight"}


def test_fused_experts_come_apart(zoo) -> None:
    names = set(open_checkpoint(zoo.model("mixtral")))
    assert "model.layers.2.block_sparse_moe.experts.3.w1.weight" in names


def test_a_plain_module_keeps_its_buffers() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    opened = open_checkpoint(model)
    assert list(opened) == list(model.state_dict())
    assert opened["1.num_batches_tracked"].dtype == torch.int64
    with torch.no_grad():
        model[3].bias.fill_(7)
    assert opened["3.bias"].read().tolist() == [7, 7]


def test_blocks_of_tensors_in_any_layout_are_those_of_the_whole() -> None:
    tensors = {
        "t": torch.randn(7, 5).t(),
        "s": torch.tensor(2.0),
        "e": torch.zeros(0, 3),
        "v": torch.randn(9)[::2],
    }
    opened = open_checkpoint(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(opened[name].read(), tensor)
        for start in range(tensor.numel()):
            for stop in range(start, tensor.numel() + 1):
                assert torch.equal(opened[name].read_flat(start, stop), tensor.reshape(-1)[start:stop])


def test_a_state_dict_shares_and_reports_ties() -> None:
    weight = torch.randn(3, 2)
    opened = open_checkpoint({"a": weight, "b": weight, "c": weight[:1]})
    assert list(opened) == ["a", "c"]
    assert opened.tied == {"b": "a"}


def peft_model(model: nn.Module, **options):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    return get_peft_model(model, LoraConfig(r=3, lora_alpha=5, init_lora_weights=False, **options)).eval()


def test_a_peft_model_opens_as_its_merged_base(zoo) -> None:
    model = MODELS["llama"]()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wrapped = peft_model(model, target_modules=["q_proj", "down_proj"], modules_to_save=["lm_head"])
    wrapped.base_model.model.lm_head.modules_to_save["default"].weight.data.fill_(0.5)
    opened = open_checkpoint(wrapped)
    blocks = torch.cat([opened["model.layers.0.mlp.down_proj.weight"].read_flat(k, k + 1) for k in range(40)])
    values = {name: tensor.read() for name, tensor in opened.items()}
    assert torch.equal(blocks, values["model.layers.0.mlp.down_proj.weight"].reshape(-1)[:40])
    merged = wrapped.merge_and_unload().state_dict()
    assert set(values) == set(merged)
    for name, tensor in merged.items():
        torch.testing.assert_close(values[name], tensor, rtol=1e-6, atol=1e-7)
    query = "model.layers.1.self_attn.q_proj.weight"
    assert not torch.equal(merged[query], before[query])
    assert set(values["lm_head.weight"].reshape(-1).tolist()) == {0.5}


def test_peft_over_transposed_weights() -> None:
    wrapped = peft_model(MODELS["gpt2"](), target_modules=["c_attn"], fan_in_fan_out=True)
    opened = open_checkpoint(wrapped)
    found = opened["transformer.h.1.attn.c_attn.weight"].read()
    torch.testing.assert_close(
        found,
        wrapped.merge_and_unload().state_dict()["transformer.h.1.attn.c_attn.weight"],
        rtol=1e-6,
        atol=1e-7,
    )


def test_adapters_that_do_not_add_up_per_tensor_are_refused() -> None:
    wrapped = peft_model(MODELS["llama"](), target_modules=["q_proj"], use_dora=True)
    with pytest.raises(InputError, match="merge_and_unload"):
        open_checkpoint(wrapped)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(InputError, match="a int can't be opened"):
        open_checkpoint(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no tensors: `b`"):
        open_checkpoint({"a": torch.ones(1), "b": 3})
    with pytest.raises(InputError, match="meta device, without values: `weight`"):
        open_checkpoint(nn.Linear(2, 2, device="meta"))
    with pytest.raises(InputError, match="meta device, without values: `w`"):
        open_checkpoint({"w": torch.zeros(2, 2, device="meta")})
    with pytest.raises(InputError, match=r"only dense tensors .* unlike `w`"):
        open_checkpoint({"w": torch.eye(2).to_sparse()})

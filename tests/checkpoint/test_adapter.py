"""PEFT adapters over their base are what peft itself makes of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from plait.checkpoint import Checkpoint, numel, open_checkpoint
from plait.checkpoint._adapter import adapter_base, is_adapter, open_adapter, open_adapter_alone
from plait.errors import InputError


def tiny_llama(**changes: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 67}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**sizes, **heads, **changes}))


def tiny_gpt2() -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=67, n_positions=16)
    return transformers.GPT2LMHeadModel(config)


def train(model: torch.nn.Module) -> None:
    """Move every trainable parameter away from where it was initialised."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator) * 0.1
            # a magnitude stays positive
            parameter.data += noise.abs() if "magnitude" in name else noise


def adapt(folder: Path, model: torch.nn.Module, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    """Save `model`, adapt it, save the adapter; returns the adapted model."""
    model.to(dtype).save_pretrained(folder / "base")
    base = type(model).from_pretrained(folder / "base", dtype=dtype)
    adapted = peft.get_peft_model(base, peft.LoraConfig(**options))
    train(adapted)
    adapted.save_pretrained(folder / "adapter")
    return adapted.eval()


def opened(folder: Path) -> Checkpoint:
    return open_adapter(open_checkpoint(folder / "base"), folder / "adapter")


def assert_merged(folder: Path, adapted: Any, tolerance: float = 1e-5) -> Checkpoint:
    """Every tensor equals the one of peft's own merge; at least one differs from the base."""
    result = opened(folder)
    merged = adapted.merge_and_unload().state_dict()
    base = open_checkpoint(folder / "base")
    assert set(result) == set(base)
    for name in result:
        torch.testing.assert_close(result[name].read(), merged[name], rtol=tolerance, atol=tolerance)
    assert any(not torch.equal(result[name].read(), base[name].read()) for name in base)
    return result


LLAMA = {
    "plain": {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj"]},
    "all linear": {"r": 3, "lora_alpha": 5, "target_modules": "all-linear"},
    "rank-stabilised": {"r": 4, "use_rslora": True, "target_modules": ["q_proj", "down_proj"]},
    "patterns": {
        "r": 4,
        "target_modules": ["q_proj", "k_proj", "up_proj"],
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 7, "proj": 5},
        "alpha_pattern": {r".*\.0\..*k_proj": 3, "^model.layers.1.self_attn.q_proj": 64},
    },
    "dora": {"r": 4, "use_dora": True, "target_modules": ["q_proj", "down_proj", "k_proj"]},
    "dora with rank-stabilised scale": {
        "r": 2,
        "use_dora": True,
        "use_rslora": True,
        "target_modules": ["o_proj"],
    },
    "modules to save": {
        "r": 2,
        "target_modules": ["q_proj"],
        "modules_to_save": ["lm_head", "input_layernorm"],
    },
    "embedding": {"r": 3, "lora_alpha": 9, "target_modules": ["embed_tokens", "q_proj"]},
    "embedding dora": {"r": 3, "use_dora": True, "target_modules": ["embed_tokens"]},
    "tokens": {"r": 2, "target_modules": ["q_proj"], "trainable_token_indices": [3, 66, 0]},
}


@pytest.mark.parametrize("options", LLAMA.values(), ids=list(LLAMA))
def test_llama_adapters_equal_pefts_merge(tmp_path: Path, options: dict[str, Any]) -> None:
    assert_merged(tmp_path, adapt(tmp_path, tiny_llama(), **options))


GPT2 = {
    "transposed": {"r": 4, "target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
    "transposed, not said": {"r": 4, "target_modules": ["c_attn", "c_proj"]},
    "transposed dora": {"r": 4, "use_dora": True, "target_modules": ["c_attn", "c_proj"]},
    "bias of B": {"r": 4, "lora_bias": True, "target_modules": ["c_attn"], "fan_in_fan_out": True},
    "all biases": {"r": 4, "bias": "all", "target_modules": ["c_attn"], "fan_in_fan_out": True},
    "biases of targets": {"r": 4, "bias": "lora_only", "target_modules": ["c_fc"], "fan_in_fan_out": True},
}


@pytest.mark.parametrize("options", GPT2.values(), ids=list(GPT2))
def test_gpt2_adapters_equal_pefts_merge(tmp_path: Path, options: dict[str, Any]) -> None:
    assert_merged(tmp_path, adapt(tmp_path, tiny_gpt2(), **options))


def test_an_adapter_of_the_body_fits_the_model_with_a_head(tmp_path: Path) -> None:
    model = tiny_llama()
    model.save_pretrained(tmp_path / "base")
    body = transformers.LlamaModel.from_pretrained(tmp_path / "base")
    adapted = peft.get_peft_model(body, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    train(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    merged = adapted.merge_and_unload().state_dict()
    result = opened(tmp_path)
    name = "layers.1.self_attn.q_proj.weight"
    torch.testing.assert_close(result[f"model.{name}"].read(), merged[name])


def test_a_tied_head_that_is_adapted_is_untied(tmp_path: Path) -> None:
    adapted = adapt(tmp_path, tiny_llama(tie_word_embeddings=True), r=2, target_modules=["lm_head"])
    base, result = open_checkpoint(tmp_path / "base"), opened(tmp_path)
    assert "lm_head.weight" not in base
    assert result.config["tie_word_embeddings"] is False
    assert torch.equal(result["model.embed_tokens.weight"].read(), base["model.embed_tokens.weight"].read())
    layer = adapted.base_model.model.lm_head
    expected = layer.base_layer.weight + layer.get_delta_weight("default")
    torch.testing.assert_close(result["lm_head.weight"].read(), expected.detach())


def test_a_tied_name_that_is_listed_is_kept_or_untied(tmp_path: Path) -> None:
    adapted = adapt(
        tmp_path, tiny_llama(tie_word_embeddings=True), r=2, target_modules=["embed_tokens", "q_proj"]
    )
    stored, alias = "model.embed_tokens.weight", "lm_head.weight"
    base = replace(open_checkpoint(tmp_path / "base"), tied={alias: stored})
    result = open_adapter(base, tmp_path / "adapter")
    # in the forward pass the head stays as it was: only the embedding has factors
    assert result.tied == {}
    assert torch.equal(result[alias].read(), base[stored].read())
    tokens = torch.arange(9).reshape(1, 9)
    model = tiny_llama()
    model.load_state_dict({name: tensor.read() for name, tensor in result.items()})
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(tokens).logits, adapted(tokens).logits, rtol=1e-4, atol=1e-5)
    edit_config(tmp_path, ensure_weight_tying=True)
    result = open_adapter(base, tmp_path / "adapter")
    assert result.tied == {alias: stored}
    assert alias not in result


def test_tokens_trained_in_a_tied_model_stay_tied(tmp_path: Path) -> None:
    options = {"r": 2, "target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [1, 5]}}
    adapted = adapt(tmp_path, tiny_llama(tie_word_embeddings=True), **options)
    stored, alias = "model.embed_tokens.weight", "lm_head.weight"
    base = replace(open_checkpoint(tmp_path / "base"), tied={alias: stored})
    result = open_adapter(base, tmp_path / "adapter")
    assert result.tied == {alias: stored}
    merged = adapted.merge_and_unload().state_dict()
    torch.testing.assert_close(result[stored].read(), merged[stored])
    torch.testing.assert_close(result[stored].read(), merged[alias])
    changed = (result[stored].read() != base[stored].read()).any(1).nonzero().flatten()
    assert changed.tolist() == [1, 5]


def test_bfloat16_is_rounded_once(tmp_path: Path) -> None:
    adapted = adapt(tmp_path, tiny_llama(), torch.bfloat16, r=4, target_modules=["q_proj"])
    result = opened(tmp_path)
    layer = adapted.base_model.model.model.layers[1].self_attn.q_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    exact = layer.base_layer.weight.double() + layer.scaling["default"] * b.double() @ a.double()
    found = result["model.layers.1.self_attn.q_proj.weight"].read()
    assert found.dtype == torch.bfloat16
    # half a unit in the last place of bfloat16's 8 bits, and float32's error in front of it
    torch.testing.assert_close(found.double(), exact.detach(), rtol=2**-8 * 1.01, atol=1e-7)


@pytest.mark.parametrize("model", ["llama", "gpt2"])
def test_ranges_do_not_change_a_bit(tmp_path: Path, model: str) -> None:
    dora = {"r": 4, "use_dora": True}
    if model == "llama":
        adapt(tmp_path, tiny_llama(), torch.bfloat16, target_modules=["q_proj", "embed_tokens"], **dora)
    else:
        adapt(tmp_path, tiny_gpt2(), target_modules=["c_attn", "c_proj"], **dora)
    result = opened(tmp_path)
    for tensor in result.values():
        whole = tensor.read_flat(0, numel(tensor.shape))
        for start, stop in [(0, 1), (5, 70), (31, 33), (len(whole) // 3, len(whole))]:
            last = min(stop, len(whole))
            assert torch.equal(tensor.read_flat(start, last), whole[start:last])


def test_convolutions_equal_pefts_merge(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3, bias=False), torch.nn.Conv2d(8, 5, 1), torch.nn.Conv1d(5, 4, 2)]
    model = torch.nn.Sequential(*layers)
    (tmp_path / "base").mkdir()
    save_file(model.state_dict(), tmp_path / "base" / "model.safetensors")
    for dora in (False, True):
        model.load_state_dict(load_file(tmp_path / "base" / "model.safetensors"))  # peft merges in place
        config = peft.LoraConfig(r=2, use_dora=dora, target_modules=["0", "1", "2"])
        adapted = peft.get_peft_model(torch.nn.Sequential(*layers), config)
        train(adapted)
        adapted.save_pretrained(tmp_path / "adapter")
        result = opened(tmp_path)
        for name, value in adapted.merge_and_unload().state_dict().items():
            torch.testing.assert_close(result[name].read(), value)


def test_an_adapter_alone_is_its_factors(tmp_path: Path) -> None:
    adapt(tmp_path, tiny_llama(), r=4, target_modules=["q_proj"])
    alone = open_adapter_alone(tmp_path / "adapter")
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert set(alone) == set(stored)
    assert all(torch.equal(alone[name].read(), value) for name, value in stored.items())
    assert is_adapter(tmp_path / "adapter")
    assert not is_adapter(tmp_path / "base")
    assert adapter_base(tmp_path / "adapter") == str(tmp_path / "base")


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


REFUSED = {
    "loha": ({"peft_type": "LOHA"}, "LOHA"),
    "alora": ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
    "target parameters": ({"target_parameters": ["experts.down_proj"]}, "target_parameters"),
    "pissa": ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
    "rank": ({"r": 5}, "rank 4, and adapter_config.json says 5"),
    "mistyped": ({"rank_pattern": [1]}, "rank_pattern"),
    "rank zero": ({"r": 0}, "rank"),
    "pattern": ({"alpha_pattern": {"(": 1}}, "regular expression"),
    "no magnitude": ({"use_dora": True}, "lora_magnitude_vector"),
}


@pytest.mark.parametrize(("changes", "words"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_be_merged_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    adapt(tmp_path, tiny_llama(), r=4, target_modules=["q_proj"])
    edit_config(tmp_path, **changes)
    with pytest.raises(InputError, match=words):
        opened(tmp_path)


def test_a_wrong_base_is_refused_with_all_problems(tmp_path: Path) -> None:
    adapt(tmp_path, tiny_llama(), r=4, target_modules=["q_proj", "v_proj"])
    tiny_llama(hidden_size=64, num_hidden_layers=1).save_pretrained(tmp_path / "base")
    with pytest.raises(InputError) as caught:
        opened(tmp_path)
    assert "layers.1.self_attn.q_proj.lora_A.weight" in str(caught.value)
    assert "model.layers.0.self_attn.v_proj.weight" in str(caught.value)


def test_an_adapter_without_weights_or_partner_is_refused(tmp_path: Path) -> None:
    adapt(tmp_path, tiny_llama(), r=4, target_modules=["q_proj"])
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    key = next(name for name in tensors if "lora_B" in name)
    save_file({name: value for name, value in tensors.items() if name != key}, file)
    with pytest.raises(InputError, match="partner"):
        opened(tmp_path)
    file.unlink()
    with pytest.raises(InputError, match="no adapter's weights"):
        opened(tmp_path)


def kohya_file(folder: Path, conv_alpha: float | None) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    shapes = {
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (2, 6),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": (9, 2),
        "lora_unet_down_blocks_0_conv_in.lora_down.weight": (4, 3, 3, 3),
        "lora_unet_down_blocks_0_conv_in.lora_up.weight": (5, 4, 1, 1),
    }
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    tensors["lora_te_text_model_encoder_layers_0_mlp_fc1.alpha"] = torch.tensor(1.0)
    if conv_alpha is not None:
        tensors["lora_unet_down_blocks_0_conv_in.alpha"] = torch.tensor(conv_alpha)
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "style.safetensors")
    return tensors


@pytest.mark.parametrize("conv_alpha", [8.0, None])
def test_kohya_names_find_the_pipelines_weights(tmp_path: Path, conv_alpha: float | None) -> None:
    base = {
        "text_encoder.text_model.encoder.layers.0.mlp.fc1.weight": torch.randn(9, 6),
        "unet.down_blocks.0.conv_in.weight": torch.randn(5, 3, 3, 3),
        "unet.down_blocks.0.conv_in.bias": torch.randn(5),
    }
    save_file(base, tmp_path / "base.safetensors")
    lora = kohya_file(tmp_path / "lora", conv_alpha)
    assert is_adapter(tmp_path / "lora")
    result = open_adapter(open_checkpoint(tmp_path / "base.safetensors"), tmp_path / "lora")
    text, conv = (name for name in base if name.endswith("weight"))
    fc1 = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    expected = base[text] + lora[f"{fc1}.lora_up.weight"] @ lora[f"{fc1}.lora_down.weight"] / 2
    torch.testing.assert_close(result[text].read(), expected)
    down, up = (
        lora[f"lora_unet_down_blocks_0_conv_in.{kind}.weight"].flatten(1) for kind in ("lora_down", "lora_up")
    )
    scale = 1 if conv_alpha is None else conv_alpha / 4
    torch.testing.assert_close(result[conv].read(), base[conv] + (scale * up @ down).reshape(5, 3, 3, 3))


def test_diffusers_names_find_the_pipelines_weights(tmp_path: Path) -> None:
    base = {
        "unet.mid.attn1.to_q.weight": torch.randn(6, 5),
        "unet.mid.attn1.to_out.0.weight": torch.randn(5, 6),
    }
    save_file(base, tmp_path / "base.safetensors")
    new, old = "unet.mid.attn1.to_q.lora_{}.weight", "unet.mid.attn1.processor.to_out_lora.{}.weight"
    lora = {
        new.format("A"): torch.randn(2, 5),
        new.format("B"): torch.randn(6, 2),
        old.format("down"): torch.randn(2, 6),
        old.format("up"): torch.randn(5, 2),
    }
    (tmp_path / "lora").mkdir()
    save_file(lora, tmp_path / "lora" / "pytorch_lora_weights.safetensors")
    result = open_adapter(open_checkpoint(tmp_path / "base.safetensors"), tmp_path / "lora")
    for name, up, down in (
        ("unet.mid.attn1.to_q.weight", new.format("B"), new.format("A")),
        ("unet.mid.attn1.to_out.0.weight", old.format("up"), old.format("down")),
    ):
        torch.testing.assert_close(result[name].read(), base[name] + lora[up] @ lora[down])


def test_a_pytorch_file_of_an_adapter_is_read(tmp_path: Path) -> None:
    adapted = adapt(tmp_path, tiny_llama(), r=2, target_modules=["q_proj"])
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    assert_merged(tmp_path, adapted)


def test_kohya_parts_that_fit_nothing_are_named(tmp_path: Path) -> None:
    save_file({"unet.down_blocks.0.conv_in.weight": torch.zeros(5, 2, 3, 3)}, tmp_path / "base.safetensors")
    kohya_file(tmp_path / "lora", None)
    with pytest.raises(InputError) as caught:
        open_adapter(open_checkpoint(tmp_path / "base.safetensors"), tmp_path / "lora" / "style.safetensors")
    assert "lora_te_text_model_encoder_layers_0_mlp_fc1" in str(caught.value)
    assert "unet.down_blocks.0.conv_in.weight" in str(caught.value)

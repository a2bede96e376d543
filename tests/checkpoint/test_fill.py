"""A checkpoint's weights into a module of its architecture."""

from __future__ import annotations

import pytest
import tiny
import torch
from safetensors.torch import save_file
from torch import nn

import plait
from plait.checkpoint import load_into
from plait.errors import InputError


def noisy(module: nn.Module, seed: int = 1) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return module


def same(one: nn.Module, two: nn.Module) -> bool:
    first, second = plait.open(one), plait.open(two)
    return set(first) == set(second) and all(torch.equal(first[n].read(), second[n].read()) for n in first)


@pytest.mark.parametrize("name", tiny.MODELS)
def test_a_saved_model_fills_a_new_one(name, tmp_path):
    module = noisy(tiny.MODELS[name]())
    module.save_pretrained(tmp_path)
    fresh = tiny.MODELS[name]()
    assert not same(fresh, module)
    filled = load_into(fresh, plait.open(tmp_path))
    assert same(filled, module)
    assert type(filled) is type(module)
    assert filled.training is False


def test_the_module_keeps_its_types_and_modes():
    source = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    source(torch.randn(8, 3, dtype=torch.float64))
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    filled = load_into(module, plait.open(source))
    assert filled is module
    assert module[0].weight.dtype == torch.float32
    assert torch.equal(module[0].weight, source[0].weight.float())
    assert torch.equal(module[1].running_var, source[1].running_var.float())
    assert module[1].num_batches_tracked == 1
    assert module.training


def test_what_the_checkpoint_does_not_tie_is_untied():
    tied = tiny.MODELS["llama_tied"]()
    state = {name: tensor.clone() for name, tensor in noisy(tied).state_dict().items()}
    state["lm_head.weight"] += 1
    filled = load_into(tiny.MODELS["llama_tied"](), plait.open(state))
    assert torch.equal(filled.model.embed_tokens.weight, state["model.embed_tokens.weight"])
    assert torch.equal(filled.lm_head.weight, state["lm_head.weight"])
    tokens = torch.tensor([[3, 4, 5]])
    hidden = tied.model(tokens).last_hidden_state
    assert torch.allclose(filled(tokens).logits, hidden @ state["lm_head.weight"].T, atol=1e-5)


def test_a_tied_tensor_may_be_saved_under_any_of_its_names(tmp_path):
    module = noisy(tiny.MODELS["llama_tied"]())
    state = {
        name: value for name, value in module.state_dict().items() if name != "model.embed_tokens.weight"
    }
    save_file(state, tmp_path / "model.safetensors")
    assert same(load_into(tiny.MODELS["llama_tied"](), plait.open(tmp_path)), module)


def test_buffers_that_are_not_saved_may_be_in_the_checkpoint():
    class Places(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))
            self.register_buffer("places", torch.arange(2), persistent=False)

    module = Places()
    load_into(module, plait.open({"weight": torch.ones(2), "places": torch.tensor([5, 6])}))
    assert module.weight.tolist() == [1, 1]
    assert module.places.tolist() == [0, 1]
    with pytest.raises(InputError, match="has `places`"):
        load_into(module, plait.open({"weight": torch.ones(2), "places": torch.arange(3)}))


def test_nothing_is_changed_by_a_checkpoint_of_another_architecture():
    module = nn.Linear(3, 2)
    before = module.weight.clone()
    with pytest.raises(InputError) as caught:
        load_into(module, plait.open({"weight": torch.ones(2, 3), "bais": torch.zeros(2)}))
    assert "a state dict in memory" in str(caught.value)
    assert "should fill: lacks `bias`; has `bais`\n  hint: for `bias`: did you mean `bais`?" in str(
        caught.value
    )
    assert torch.equal(module.weight, before)
    many = {f"w{place}": torch.zeros(1) for place in range(9)}
    with pytest.raises(InputError, match=r"lacks `weight`, `bias`; has `w0`, .* and 4 more"):
        load_into(module, plait.open(many))


def test_a_transformers_model_does_without_parts_that_it_has_not_but_not_without_layers(tmp_path):
    from transformers import BertConfig, BertModel

    small = {"vocab_size": 32, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
    full = noisy(BertModel(BertConfig(**small, num_hidden_layers=2)))
    full.save_pretrained(tmp_path)
    bare = BertModel(BertConfig(**small, num_hidden_layers=2), add_pooling_layer=False)
    load_into(bare, plait.open(tmp_path))
    for name, tensor in bare.state_dict().items():
        assert torch.equal(tensor, full.state_dict()[name])
    short = BertModel(BertConfig(**small, num_hidden_layers=1), add_pooling_layer=False)
    with pytest.raises(InputError, match=r"has `encoder\.layer\.1\."):
        load_into(short, plait.open(tmp_path))

"""A member's folder is an adapter that PEFT and plait load."""

from __future__ import annotations

import json

import pytest
import torch
from lora import GPT2_TARGETS, LLAMA_TARGETS, advance, bert, decoders, encoders, gpt2, llama, made
from safetensors.torch import load_file

import plait
from plait.fleet._adapter import adapted
from plait.fleet._adapters import Adapters
from plait.fleet._save_adapter import save_adapter


def trained(base, members):
    fleet = made(Adapters, base, members)
    advance(fleet, 3)
    return fleet


@pytest.mark.parametrize(("make", "targets"), [(llama, LLAMA_TARGETS), (gpt2, GPT2_TARGETS)])
def test_a_folder_loads_in_peft_with_the_same_outputs_and_in_plait_with_the_same_weights(
    tmp_path, make, targets
):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = make(torch.float32)
    base.save_pretrained(tmp_path / "base")
    fleet = trained(base, decoders(targets))
    ids = torch.arange(12).unsqueeze(0)
    for index, trainee in enumerate(fleet.trainees):
        state = fleet.state(index)
        folder = save_adapter(state, trainee.adapter, tmp_path / f"m{index}", str(tmp_path / "base"))
        assert sorted(path.name for path in folder.iterdir()) == [
            "adapter_config.json", "adapter_model.safetensors",
        ]  # fmt: skip
        loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), folder)
        own = adapted(trainee.member, base, trainee.task, state.parameters).eval()
        with torch.no_grad():
            one, other = (model(input_ids=ids).logits for model in (loaded.eval(), own))
        assert torch.equal(one, other)
        merged = loaded.merge_and_unload().state_dict()
        opened = plait.open(f"{tmp_path / 'base'}+{folder}")
        for name, tensor in opened.items():
            torch.testing.assert_close(tensor.read(), merged[name], rtol=1e-5, atol=1e-6)
        assert len(plait.open(folder)) == len(state.parameters)


def test_a_classifier_that_peft_saves_whole_comes_back(tmp_path):
    from peft import PeftModel

    base = bert(torch.float32, 5)
    base.save_pretrained(tmp_path / "base")
    fleet = trained(base, encoders(head=False))
    state, trainee = fleet.state(1), fleet.trainees[1]
    folder = save_adapter(state, trainee.adapter, tmp_path / "m", str(tmp_path / "base"))
    assert json.loads((folder / "adapter_config.json").read_text())["modules_to_save"]
    loaded = PeftModel.from_pretrained(bert(torch.float32, 5), folder).eval()
    own = adapted(trainee.member, base, trainee.task, state.parameters).eval()
    ids = torch.arange(12).unsqueeze(0)
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, own(input_ids=ids).logits)
        assert not torch.equal(loaded(input_ids=ids).logits, base.eval()(input_ids=ids).logits)


def test_a_head_lies_beside_its_adapter(tmp_path):
    fleet = trained(bert(torch.float32), encoders(head=True))
    folder = save_adapter(fleet.state(0), fleet.trainees[0].adapter, tmp_path / "m", "base")
    head = load_file(folder / "head.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in head.items()} == {"weight": (3, 16), "bias": (3,)}
    assert not any("head" in name for name in load_file(folder / "adapter_model.safetensors"))


def test_the_same_adapter_gives_the_same_bytes(tmp_path):
    fleet = trained(llama(torch.float32), decoders(LLAMA_TARGETS))
    folders = [save_adapter(fleet.state(0), fleet.trainees[0].adapter, tmp_path / n, "base") for n in "ab"]
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()

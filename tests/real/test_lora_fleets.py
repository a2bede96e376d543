"""LoRA members on a real language model, beside PEFT alone."""

from __future__ import annotations

import pytest
import torch
from stdlib_text import texts
from training import load_smollm2, smollm2_loss

import plait
from plait.fleet import Fleet, Member
from plait.tasks import language_task

pytestmark = pytest.mark.slow


def test_adapters_on_a_language_model_equal_peft_alone_and_are_loaded_by_it(smollm2_family, tmp_path):
    from peft import LoraConfig, PeftModel
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(smollm2_family.base)
    members = []
    for number, (domain, text) in enumerate(texts().items()):
        rows = [{"text": text[start : start + 200]} for start in range(0, 4000, 200)]
        lora = LoraConfig(r=4 + 2 * number, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        task = language_task(domain, rows, words, max_length=40)
        members.append(
            # SGD: where a gradient is next to nothing, AdamW makes a whole step of its rounding's sign.
            Member(name=domain, task=task, steps=6, lr=0.1 / (1 + number), seed=number,
                   batch_size=1 + number, lora=lora, optimizer="sgd")
        )  # fmt: skip
    base = load_smollm2(smollm2_family.base)
    together = Fleet(members, model=base, backend="adapters").fit()
    alone = Fleet(members, model=base, backend="sequential").fit()
    for member in members:
        one, other = together.state(member.name).parameters, alone.state(member.name).parameters
        assert one.keys() == other.keys()
        scale = max(float(tensor.abs().max()) for tensor in other.values())
        assert max(float((one[name] - other[name]).abs().max()) for name in one) <= 1e-4 * scale
        learned = [name for name in one if "lora_B" in name]  # these begin as zeros
        most = max(float(other[name].abs().max()) for name in learned)
        assert max(float((one[name] - other[name]).abs().max()) for name in learned) <= 1e-3 * most
    folders = together.save(tmp_path / "out", base=smollm2_family.base)
    for folder, (domain, text) in zip(folders, texts().items(), strict=True):
        loaded = PeftModel.from_pretrained(load_smollm2(smollm2_family.base), folder).eval()
        with torch.no_grad():
            before, after = (float(smollm2_loss(model, words, text)) for model in (base.eval(), loaded))
        assert after < before, domain
        opened = plait.open(f"{smollm2_family.base}+{folder}")
        assert len(opened) == len(plait.open(smollm2_family.base))

"""A real language model (SmolLM2, 135 M parameters): from GGUF, fine-tuned, adapted, merged, and speaking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from packages import Family
from stdlib_text import texts
from test_minilm import given
from training import load_smollm2, smollm2_loss, tune_lora

import plait
from plait.methods import METHODS

pytestmark = pytest.mark.slow


def tokenizer(folder: str | Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def losses(model: Any, words: Any) -> list[float]:
    """Nats per token on each of the three texts."""
    with torch.no_grad():
        return [float(smollm2_loss(model, words, text)) for text in texts().values()]


def answer(folder: str | Path) -> str:
    words, model = tokenizer(folder), load_smollm2(folder)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    ids = words.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    out = model.generate(**ids, max_new_tokens=16, do_sample=False)
    return words.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def test_a_gguf_opens_as_what_transformers_makes_of_it(smollm2_gguf):
    from transformers import AutoModelForCausalLM

    opened = plait.open(smollm2_gguf)
    path = smollm2_gguf
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    state = model.state_dict()
    assert {*opened, *opened.tied} == {*state}
    for name, tensor in opened.items():
        assert torch.equal(tensor.read(), state[name]), name
    layers = plait.inspect(opened).layers
    assert layers == {"model.layers.": 30}


@pytest.mark.parametrize("conventions", ["paper", "mergekit"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_a_better_model_of_three_fine_tunes(smollm2_family, tmp_path, method, conventions):
    base = smollm2_family.base
    plait.merge(**given(smollm2_family, method), conventions=conventions, out=tmp_path / "out")
    words = tokenizer(tmp_path / "out")
    before, after = (losses(load_smollm2(folder), words) for folder in (base, tmp_path / "out"))
    assert sum(after) < sum(before)
    assert max(a - b for a, b in zip(after, before, strict=True)) < 0.1


def test_a_merge_over_a_gguf_speaks_with_its_own_chat_template(smollm2_family, smollm2_gguf, tmp_path):
    out = tmp_path / "out"
    plait.merge(smollm2_family.tuned, base=smollm2_gguf, method="ties", dtype="bfloat16", out=out)
    assert plait.verify(out).ok
    assert "Paris" in answer(out)


def test_shards_load_like_one_file(smollm2_family, tmp_path):
    options = plait.RunOptions(max_shard_size=60_000_000)
    plait.merge(smollm2_family.tuned, out=tmp_path / "shards", options=options)
    plait.merge(smollm2_family.tuned, out=tmp_path / "one")
    assert len(list((tmp_path / "shards").glob("model-*-of-*.safetensors"))) > 3
    assert plait.diff(plait.open(tmp_path / "shards"), plait.open(tmp_path / "one")).identical
    assert "Paris" in answer(tmp_path / "shards")


@pytest.fixture(scope="module")
def adapters(shared, smollm2_family) -> list[str]:
    root = shared("lora", lambda folder: tune_lora(smollm2_family.base, folder))
    return [str(path) for path in sorted(root.iterdir())]


def test_lora_adapters_merge_as_the_models_they_make(smollm2_family, adapters, tmp_path):
    from peft import PeftModel

    base = smollm2_family.base
    models = [f"{base}+{adapter}" for adapter in adapters]
    found = plait.merge(models, base=base, method="task_arithmetic", weight=0.5, dtype="float32")
    assert isinstance(found, dict)
    expected = {name: value.clone() for name, value in load_smollm2(base).state_dict().items()}
    for adapter in adapters:
        full = PeftModel.from_pretrained(load_smollm2(base, torch.bfloat16), adapter).merge_and_unload()
        origin = load_smollm2(base).state_dict()
        for name, value in full.state_dict().items():
            expected[name] += 0.5 * (value.float() - origin[name])
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=2**-7, atol=1e-3)
    merged = load_smollm2(base)
    merged.load_state_dict(found, strict=False)
    words = tokenizer(base)
    assert sum(losses(merged, words)) < sum(losses(load_smollm2(base), words))


def test_live_peft_models_merge_like_their_folders(smollm2_family, adapters):
    from peft import PeftModel

    base = smollm2_family.base
    live = [PeftModel.from_pretrained(load_smollm2(base, torch.bfloat16), a) for a in adapters[:2]]
    found = plait.merge(live, method="linear")
    stored = plait.merge([f"{base}+{adapter}" for adapter in adapters[:2]], method="linear")
    assert isinstance(found, dict)
    assert isinstance(stored, dict)
    assert found.keys() == stored.keys()
    for name, tensor in found.items():  # products of factors may be added up in another order
        torch.testing.assert_close(tensor, stored[name], rtol=2**-7, atol=1e-3)


def test_an_extracted_adapter_comes_closer_to_the_fine_tune_with_its_rank(smollm2_family, tmp_path):
    from peft import PeftModel

    base, tuned = smollm2_family.base, smollm2_family.tuned[0]
    words = tokenizer(base)
    target = losses(load_smollm2(tuned), words)[0]
    start = losses(load_smollm2(base), words)[0]
    errors, gaps = [], []
    for rank in (4, 32, 256):
        out = tmp_path / str(rank)
        report = plait.extract_lora(plait.open(tuned), plait.open(base), out, rank=rank)
        errors.append(sum(module.error for module in report.modules) / len(report.modules))
        model = PeftModel.from_pretrained(load_smollm2(base), out)
        gaps.append(abs(losses(model, words)[0] - target))
        distance = plait.diff(plait.open(tuned), plait.open(f"{base}+{out}")).total
        assert distance.relative is not None
        assert distance.relative < 0.01
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.8 * errors[0]
    assert gaps[-1] < 0.3 * (start - target)


def test_the_distances_of_fine_tunes_make_sense(smollm2_family: Family):
    base, (one, other, _) = plait.open(smollm2_family.base), map(plait.open, smollm2_family.tuned)
    same = plait.diff(base, plait.open(smollm2_family.base))
    assert same.identical
    assert same.total.l2 == 0
    near, far = plait.diff(base, one).total, plait.diff(one, other).total
    assert near.relative is not None
    assert far.relative is not None
    assert 0 < near.relative < far.relative < 0.02
    assert near.cosine is not None
    assert near.cosine > 0.999
    assert near.elements == plait.inspect(base).parameters == 134_515_008

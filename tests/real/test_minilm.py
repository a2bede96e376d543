"""A real sentence encoder (22.7 M parameters) perturbed, fine-tuned, merged, loaded and run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from stdlib_text import DOMAINS, described
from training import embed, load_minilm, minilm_loss

import plait
from plait.methods import METHODS

SENTENCES = ["A man is eating food.", "Someone eats a meal.", "The market fell by two percent."]
#: What a method must be told.
NEEDED = {"slerp": {"t": 0.5}, "nearswap": {"t": 1e-4}}


def given(family, method: str) -> dict[str, object]:
    """The arguments of a merge: as many fine-tunes as the method takes, and its base."""
    spec = METHODS[method]
    base = None if spec.base == "unused" else family.base
    models = family.tuned[: spec.max_models]
    return {"models": models, "base": base, "method": method, **NEEDED.get(method, {})}


def perturbed(base: Path, out: Path, seed: int) -> str:
    """A copy with a little noise on every weight."""
    shutil.copytree(base, out)
    generator = torch.Generator().manual_seed(seed)
    tensors = load_file(base / "model.safetensors")
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            tensors[name] = tensor + 0.02 * float(tensor.std(correction=0)) * noise
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    return str(out)


def test_three_variants_merge_into_a_folder_that_loads_and_runs(minilm, tmp_path):
    models = [perturbed(minilm, tmp_path / name, seed) for seed, name in enumerate("abc")]
    out = tmp_path / "out"
    plait.merge(models, base=str(minilm), method="ties", density=0.5, out=out)
    assert plait.verify(out).ok
    travelling = [path.relative_to(minilm) for path in minilm.rglob("*") if path.is_file()]
    own = {"README.md", ".gitattributes", "model.safetensors"}
    for path in travelling:
        if path.name not in own:
            assert (out / path).read_bytes() == (minilm / path).read_bytes(), path
    assert json.loads((out / "modules.json").read_text())[1]["path"] == "1_Pooling"
    with torch.no_grad():
        before, after = (embed(*load_minilm(folder), SENTENCES) for folder in (minilm, out))
    assert (before * after).sum(1).min() > 0.97
    assert after[0] @ after[1] > 0.6
    assert after[0] @ after[2] < 0.2
    distance = plait.diff(plait.open(minilm), plait.open(out)).total
    assert 0 < distance.relative < 0.03
    assert distance.cosine is not None
    assert distance.cosine > 0.999


@pytest.mark.slow
@pytest.mark.parametrize("conventions", ["paper", "mergekit"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_a_better_encoder_of_three_fine_tunes(
    minilm_family, tmp_path, method, conventions
):
    out = tmp_path / "out"
    plait.merge(**given(minilm_family, method), conventions=conventions, out=out)
    losses = {}
    with torch.no_grad():
        for folder in (minilm_family.base, str(out)):
            model, tokenizer = load_minilm(folder)
            tasks = [described(modules)[:32] for modules in DOMAINS.values()]
            losses[folder] = [float(minilm_loss(model, tokenizer, pairs)) for pairs in tasks]
    before, after = losses.values()
    assert sum(after) < sum(before)
    assert max(a - b for a, b in zip(after, before, strict=True)) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_merging_copies_of_a_model_returns_it(minilm, tmp_path, method):
    spec = METHODS[method]
    copies = [str(shutil.copytree(minilm, tmp_path / name)) for name in "abc"][: spec.max_models]
    base = None if spec.base == "unused" else str(minilm)
    found = plait.merge(copies, base=base, method=method, **NEEDED.get(method, {}))
    assert isinstance(found, dict)
    original = load_file(minilm / "model.safetensors")
    assert found.keys() == original.keys()
    for name, tensor in original.items():
        if spec.base == "required":
            assert torch.equal(found[name], tensor), name
        else:  # weights that sum to one in float32 may miss one in the last bits
            torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-7)

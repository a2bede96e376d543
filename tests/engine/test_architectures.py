"""Any architecture: real transformers classes are merged from disk, loaded back and run."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import plait

sys.path.insert(0, str(Path(__file__).parents[1] / "checkpoint"))
sys.path.insert(0, str(Path(__file__).parents[1] / "methods"))
import spectral
from tiny import LM, MODELS

#: What makes a forward pass; what is not named takes token ids.
TOKENS = torch.arange(1, 13).view(1, 12)
IMAGE = torch.linspace(-1, 1, 3 * 8 * 8).view(1, 3, 8, 8)
INPUTS: dict[str, dict[str, torch.Tensor]] = {
    "t5": {"input_ids": TOKENS, "decoder_input_ids": TOKENS[:, :5]},
    "vit": {"pixel_values": IMAGE},
    "clip": {"input_ids": TOKENS, "pixel_values": IMAGE},
    "whisper": {
        "input_features": torch.linspace(-1, 1, 8 * 40).view(1, 8, 40),
        "decoder_input_ids": TOKENS[:, :5],
    },
    # Four patches of an image stand where token 5 stands.
    "llava": {"input_ids": torch.tensor([[1, 5, 5, 5, 5, 7, 8]]), "pixel_values": IMAGE},
}


def perturbed(model: nn.Module, seed: int) -> nn.Module:
    """A copy whose every parameter is a little off; tied ones stay tied."""
    generator = torch.Generator().manual_seed(seed)
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return changed


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """name → (base, a, b) as modules and as folders; built on first use."""
    root, known = tmp_path_factory.mktemp("family"), {}

    def get(name: str) -> tuple[list[Any], list[str]]:
        if name not in known:
            base = MODELS[name]()
            modules: list[Any] = [base, perturbed(base, 1), perturbed(base, 2)]
            folders = [str(root / name / word) for word in ("base", "a", "b")]
            for module, folder in zip(modules, folders, strict=True):
                module.save_pretrained(folder)
            known[name] = modules, folders
        return known[name]

    return get


def stored(folder: str | Path) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    for path in sorted(Path(folder).rglob("*.safetensors")):
        tensors |= {name: tensor.numpy() for name, tensor in load_file(path).items()}
    return tensors


def loaded(kind: type[Any], folder: Path) -> Any:
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    return model.eval()


def answer(model: Any, name: str) -> torch.Tensor:
    with torch.no_grad():
        out = model(**INPUTS.get(name, {"input_ids": TOKENS}))
    return out.logits_per_text if name == "clip" else out.logits


@pytest.mark.parametrize("name", MODELS)
def test_the_mean_of_two_models_loads_and_runs(family, tmp_path, name):
    (base, a, b), (_, *folders) = family(name)
    plait.merge(folders, method="linear", out=tmp_path / "out")
    one, other, found = stored(folders[0]), stored(folders[1]), stored(tmp_path / "out")
    assert found.keys() == one.keys()
    for key, tensor in found.items():
        expected = (one[key].astype(np.float64) + other[key]) / 2
        np.testing.assert_allclose(tensor, expected, rtol=1e-6, atol=1e-7)
    mean = copy.deepcopy(base)
    with torch.no_grad():
        for p, x, y in zip(mean.parameters(), a.parameters(), b.parameters(), strict=True):
            p.copy_((x + y) / 2)
    result = answer(loaded(type(base), tmp_path / "out"), name)
    assert result.isfinite().all()
    torch.testing.assert_close(result, answer(mean, name), rtol=1e-4, atol=1e-5)


def trimmed(deltas: dict[str, np.ndarray], density: float, *, whole: bool) -> dict[str, np.ndarray]:
    """What is among the largest of the tensor, or of all tensors together."""

    def threshold(values: np.ndarray) -> float:
        count = max(int(density * values.size), 1)
        return np.sort(np.abs(values.ravel()))[::-1][count - 1]

    line = threshold(np.concatenate([d.ravel() for d in deltas.values()])) if whole else None
    return {k: np.where(np.abs(d) >= (line if whole else threshold(d)), d, 0.0) for k, d in deltas.items()}


@pytest.mark.parametrize("conventions", ["paper", "mergekit"])
@pytest.mark.parametrize("name", MODELS)
def test_ties_is_its_formula_on_every_architecture(family, tmp_path, name, conventions):
    (base, *_), (start, *folders) = family(name)
    options = {"density": 0.3, "conventions": conventions}
    plait.merge(folders, base=start, method="ties", out=tmp_path / "out", **options)
    origin, found = stored(start), stored(tmp_path / "out")
    kept = [
        trimmed({k: v - origin[k] for k, v in stored(f).items()}, 0.3, whole=conventions == "paper")
        for f in folders
    ]
    assert found.keys() == origin.keys()
    for key, tensor in found.items():
        values = np.stack([k[key].astype(np.float64) for k in kept])
        agree = values * values.sum(0) > 0
        merged = np.where(agree, values, 0.0).sum(0) / np.maximum(agree.sum(0), 1)
        np.testing.assert_allclose(tensor, origin[key] + merged, rtol=1e-5, atol=1e-6)
    assert answer(loaded(type(base), tmp_path / "out"), name).isfinite().all()


@pytest.mark.parametrize("method", ["tsv", "iso_c", "iso_cts"])
@pytest.mark.parametrize("name", ["gpt2", "mixtral", "vit", "whisper"])
def test_matrices_and_convolutions_are_merged_as_such(family, tmp_path, name, method):
    (base, *_), (start, *folders) = family(name)
    plait.merge(folders, base=start, method=method, out=tmp_path / "out")
    states = [{k: v.astype(np.float64) for k, v in stored(folder).items()} for folder in (start, *folders)]
    expected = spectral.by_matrix(getattr(spectral, method), states[0], states[1:])
    for key, tensor in stored(tmp_path / "out").items():
        np.testing.assert_allclose(tensor, expected[key], rtol=1e-6, atol=1e-6)
    assert answer(loaded(type(base), tmp_path / "out"), name).isfinite().all()


def test_a_tied_head_merges_with_an_untied_one(family, tmp_path):
    (untied, *_), (_, folder, _) = family("llama")
    (_, tied, _), (_, tied_folder, _) = family("llama_tied")
    assert "lm_head.weight" not in stored(tied_folder)
    plait.merge([folder, tied_folder], out=tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["tie_word_embeddings"] is False
    merged = loaded(type(untied), tmp_path / "out")
    embedding = tied.model.embed_tokens.weight.detach()
    head = torch.from_numpy(stored(folder)["lm_head.weight"])
    torch.testing.assert_close(merged.lm_head.weight.detach(), (head + embedding) / 2)
    assert answer(merged, "llama").shape == (1, 12, LM["vocab_size"])


def cnn(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(180, 4))
    for _ in range(seed + 1):
        model(torch.randn(6, 3, 8, 8))
    return model.eval()


@pytest.mark.parametrize("live", [True, False])
def test_a_plain_cnn_with_batch_norm(tmp_path, live):
    models = [cnn(seed) for seed in range(3)]
    given: list[Any] = list(models)
    for index, model in enumerate(models):
        if not live:
            given[index] = str(tmp_path / f"{index}.pt")
            torch.save(model.state_dict(), given[index])
    found = plait.merge(given[1:], base=given[0], method="task_arithmetic", weight=0.5)
    assert isinstance(found, dict)
    states = [model.state_dict() for model in models]
    for key, tensor in found.items():
        expected = (states[1][key].double() + states[2][key].double()) / 2
        if key.endswith("num_batches_tracked"):
            expected = states[0][key]
        torch.testing.assert_close(tensor, expected.to(tensor.dtype), rtol=1e-5, atol=1e-6)
    merged = cnn(7)
    merged.load_state_dict(found, strict=True)
    assert merged.eval()(IMAGE).isfinite().all()

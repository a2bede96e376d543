"""Diffusers pipelines: every sub-model's tensors, under its folder's name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from plait.checkpoint import open_checkpoint
from plait.checkpoint._diffusers import open_components, open_diffusers
from plait.errors import InputError

INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.30.0",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "safety_checker": [None, None],
    "requires_safety_checker": True,
}


def pipeline(folder: Path) -> dict[str, torch.Tensor]:
    tensors = {"unet/conv.weight": torch.randn(4, 3, 3, 3), "text_encoder/embed.weight": torch.randn(7, 5)}
    for part in ("unet", "text_encoder", "scheduler"):
        (folder / part).mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps(INDEX))
    (folder / "unet" / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    (folder / "text_encoder" / "config.json").write_text('{"model_type": "clip_text_model"}')
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")
    unet = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({"conv.weight": tensors["unet/conv.weight"]}, unet)
    save_file(
        {"embed.weight": tensors["text_encoder/embed.weight"]}, folder / "text_encoder" / "model.safetensors"
    )
    return tensors


def test_a_pipeline_is_all_its_sub_models(tmp_path: Path) -> None:
    expected = pipeline(tmp_path / "sd")
    checkpoint = open_diffusers(tmp_path / "sd")
    assert set(checkpoint) == set(expected)
    for name, value in expected.items():
        assert torch.equal(checkpoint[name].read(), value)
        assert checkpoint[name].name == name
    sidecars = {sidecar.name for sidecar in checkpoint.sidecars}
    assert sidecars == {
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "unet/config.json",
    }
    assert set(checkpoint.fingerprint) == {
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
    }
    assert set(open_checkpoint(tmp_path / "sd")) == set(expected)


def test_sub_models_open_one_by_one(tmp_path: Path) -> None:
    pipeline(tmp_path / "sd")
    parts = open_components(tmp_path / "sd")
    assert set(parts) == {"unet", "text_encoder"}
    assert parts["unet"].config["_class_name"] == "UNet2DConditionModel"
    assert list(parts["text_encoder"]) == ["embed.weight"]


def test_all_problems_of_a_pipeline_are_told_at_once(tmp_path: Path) -> None:
    pipeline(tmp_path / "sd")
    for file in (tmp_path / "sd" / "scheduler").iterdir():
        file.unlink()
    (tmp_path / "sd" / "scheduler").rmdir()
    (tmp_path / "sd" / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"short")
    with pytest.raises(InputError) as caught:
        open_diffusers(tmp_path / "sd")
    assert "scheduler" in str(caught.value)
    assert "diffusion_pytorch_model.safetensors" in str(caught.value)


def test_an_index_that_points_outside_is_refused(tmp_path: Path) -> None:
    pipeline(tmp_path / "sd")
    index = {**INDEX, "../other": ["diffusers", "UNet2DConditionModel"]}
    (tmp_path / "sd" / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"\.\./other"):
        open_diffusers(tmp_path / "sd")

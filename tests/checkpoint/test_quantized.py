"""FP8 with scales is dequantised block by block; other quantised checkpoints are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from plait.checkpoint import open_checkpoint, save_checkpoint
from plait.errors import InputError

F8 = torch.float8_e4m3fn


def saved(
    folder: Path, tensors: dict[str, torch.Tensor], quantization: dict | None = None, **config: object
) -> Path:
    if quantization is not None:
        config["quantization_config"] = quantization
    return save_checkpoint(folder / "m", tensors, config={"model_type": "llama", **config})


def slow(weight: torch.Tensor, scale: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Element by element, by the definition."""
    out = torch.empty(weight.shape, dtype=torch.float32)
    for i in range(weight.shape[-2]):
        for j in range(weight.shape[-1]):
            out[..., i, j] = weight[..., i, j].float() * scale[..., i // rows, j // columns].float()
    return out


@pytest.mark.parametrize("shape", [(5, 7), (4, 6), (1, 9), (3, 5, 7)])
def test_block_scales(tmp_path: Path, shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape).to(F8)
    blocks = [*shape[:-2], -(-shape[-2] // 2), -(-shape[-1] // 3)]
    scale = torch.rand(blocks) + 0.5
    tensors = {
        "a.weight": weight,
        "a.weight_scale_inv": scale,
        "a.input_scale": torch.ones(1),
        "n": torch.ones(2),
    }
    opened = open_checkpoint(
        saved(tmp_path, tensors, {"quant_method": "fp8", "weight_block_size": [2, 3]}, dtype="float32")
    )
    assert set(opened) == {"a.weight", "n"}
    assert "quantization_config" not in opened.config
    expected = slow(weight, scale, 2, 3)
    found = opened["a.weight"]
    assert found.dtype == torch.float32
    assert torch.equal(found.read(), expected)
    for start in range(0, expected.numel(), 3):
        for stop in range(start, expected.numel() + 1, 5):
            assert torch.equal(found.read_flat(start, stop), expected.reshape(-1)[start:stop])


def test_blocks_of_128_are_the_default_and_bfloat16_the_result(tmp_path: Path) -> None:
    weight, scale = torch.randn(130, 260).to(F8), torch.rand(2, 3) + 0.5
    opened = open_checkpoint(
        saved(tmp_path, {"a.weight": weight, "a.weight_scale_inv": scale}, {"quant_method": "fp8"})
    )
    found = opened["a.weight"].read()
    assert found.dtype == torch.bfloat16
    full = scale.repeat_interleave(128, 0)[:130].repeat_interleave(128, 1)[:, :260]
    assert torch.equal(found, (weight.float() * full).bfloat16())


@pytest.mark.parametrize("shape", [(), (1,), (6, 1), (6,), (1, 1)])
def test_scales_of_the_tensor_and_of_rows(tmp_path: Path, shape: tuple[int, ...]) -> None:
    weight, scale = torch.randn(6, 4).to(F8), torch.rand(shape) + 0.5
    tensors = {"a.weight": weight, "a.weight_scale": scale}
    opened = open_checkpoint(
        saved(tmp_path, tensors, {"quant_method": "compressed-tensors"}, dtype="float32")
    )
    wide = scale.reshape(-1, 1) if scale.numel() > 1 else scale
    assert torch.equal(opened["a.weight"].read(), weight.float() * wide)


def test_scales_without_a_config_are_applied_and_plain_float8_stays(tmp_path: Path) -> None:
    weight = torch.randn(6, 4).to(F8)
    tensors = {"a.weight": weight, "a.weight_scale": torch.tensor(2.0), "b.weight": weight}
    tensors |= {"c": torch.ones(3), "c_scale": torch.ones(3)}
    opened = open_checkpoint(saved(tmp_path, tensors))
    assert {"c", "c_scale"} < set(opened)
    assert torch.equal(opened["a.weight"].read().float(), weight.float() * 2)
    assert opened["b.weight"].dtype == F8
    plain = open_checkpoint({"b.weight": weight, "c_scale": torch.ones(1), "c": torch.ones(3)})
    assert list(plain) == ["b.weight", "c_scale", "c"]


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "mxfp4", "quanto", "hqq", "torchao"])
def test_other_methods_are_refused_by_name(tmp_path: Path, method: str) -> None:
    folder = saved(tmp_path, {"a.weight": torch.zeros(3, dtype=torch.uint8)}, {"quant_method": method})
    with pytest.raises(InputError, match=rf"quantised \({method}\)") as caught:
        open_checkpoint(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("l.weight.absmax", "bitsandbytes"),
        ("l.SCB", "bitsandbytes"),
        ("l.g_idx", "GPTQ"),
        ("l.qweight", "GPTQ or AWQ"),
        ("l.weight_packed", "compressed-tensors"),
        ("l.experts.gate_up_proj_blocks", "MXFP4"),
    ],
)
def test_names_betray_what_the_config_does_not_say(name: str, kind: str) -> None:
    with pytest.raises(InputError, match=rf"quantised \({kind}\)"):
        open_checkpoint({name: torch.zeros(2, dtype=torch.uint8)})


def test_scales_that_do_not_fit_and_scales_that_miss_are_all_reported(tmp_path: Path) -> None:
    tensors = {
        "a.weight": torch.randn(6, 4).to(F8),
        "a.weight_scale_inv": torch.ones(3, 3),
        "b.weight": torch.randn(6, 4).to(F8),
        "c.weight": torch.ones(6, 4, dtype=torch.int8),
        "c.weight_scale": torch.ones(6, 1),
    }
    with pytest.raises(InputError) as caught:
        open_checkpoint(saved(tmp_path, tensors, {"quant_method": "fp8"}))
    text = str(caught.value)
    assert "`a.weight`: its scale (3, 3) does not fit its shape (6, 4)" in text
    assert "`b.weight`: it is FP8 and has no scale" in text
    assert "`c.weight`: it is quantised to torch.int8" in text

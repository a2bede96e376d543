"""Inspecting reads headers only; a diff's numbers are those of whole-tensor formulas in float64."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from plait.checkpoint import Checkpoint, MemoryTensor, open_checkpoint
from plait.engine import _compare
from plait.engine._compare import diff_checkpoints, largest_differences
from plait.engine._inspect import inspect_checkpoint
from plait.errors import InputError


def memory(tensors: dict[str, Tensor], **fields: object) -> Checkpoint:
    lazy = {name: MemoryTensor(name, tensor) for name, tensor in tensors.items()}
    return Checkpoint("memory", lazy, **fields)  # type: ignore[arg-type]


def test_inspecting_finds_shapes_types_layers_and_ties(tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = {"model.embed.weight": torch.zeros(10, 4, dtype=torch.bfloat16)}
    for layer in range(3):
        tensors[f"model.layers.{layer}.attn.weight"] = torch.zeros(4, 4)
        tensors[f"model.layers.{layer}.steps"] = torch.tensor(1)
    save_file(tensors, tmp_path / "model.safetensors")
    config = {"model_type": "llama", "num_hidden_layers": 3, "architectures": ["LlamaForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint = open_checkpoint(tmp_path)
    found = inspect_checkpoint(checkpoint)
    assert found.parameters == 40 + 3 * 16
    assert found.elements == found.parameters + 3
    assert found.bytes == 80 + 3 * 64 + 3 * 8
    assert found.dtypes == {"float32": 48, "bfloat16": 40, "int64": 3}
    assert next(iter(found.dtypes)) == "float32"
    assert found.layers == {"model.layers.": 3}
    assert found.main_stack == "model.layers."
    assert found.model_type == "llama"
    assert found.sidecars == ("config.json",)
    row = next(row for row in found.tensors if row.name == "model.layers.1.attn.weight")
    assert (row.shape, row.dtype, row.stack, row.layer) == ((4, 4), "float32", "model.layers.", 1)
    assert json.loads(json.dumps(found.to_dict()))["architectures"] == ["LlamaForCausalLM"]


def test_inspecting_reads_no_weight() -> None:
    class Unreadable(MemoryTensor):
        def read_flat(self, start: int, stop: int) -> Tensor:
            raise AssertionError("a weight was read")

    checkpoint = Checkpoint("memory", {"a": Unreadable("a", torch.zeros(3))}, tied={"b": "a"})
    assert inspect_checkpoint(checkpoint).tied == {"b": "a"}


DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.float8_e4m3fn]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 7), max_size=3),
    st.sampled_from(DTYPES),
    st.sampled_from(DTYPES),
    st.integers(1, 50),
    st.integers(0, 99),
)
def test_distances_are_those_of_whole_tensors_for_every_chunk(
    shape: list[int], one: torch.dtype, other: torch.dtype, chunk: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(shape, generator=generator).to(one)
    b = torch.randn(shape, generator=generator).to(other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_compare, "_CHUNK", chunk)
        row = diff_checkpoints(memory({"x": a}), memory({"x": b})).rows[0]
    x, y = a.double().flatten(), b.double().flatten()
    found = row.distance
    assert found is not None
    assert found.elements == a.numel()
    assert found.l2 == pytest.approx(float((x - y).norm()), rel=1e-12)
    assert found.max_abs == (float((x - y).abs().max()) if a.numel() else 0)
    assert found.different == int((x != y).sum())
    if a.numel():
        assert found.sign_agreement == pytest.approx(float((x.sign() == y.sign()).double().mean()))
        if found.cosine is not None:
            assert found.cosine == pytest.approx(float(x @ y / (x.norm() * y.norm())), abs=1e-12)
            assert found.relative == pytest.approx(float((x - y).norm() / x.norm()), rel=1e-12)
    same = one == other and torch.equal(x, y)
    assert row.status == ("identical" if same else "differs" if one == other else "dtype differs")


def test_equal_checkpoints_are_identical_to_the_bit() -> None:
    tensors = {
        "weight": torch.randn(3, 4),
        "nan": torch.tensor([float("nan"), 1.0]),
        "count": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "empty": torch.zeros(0, 5),
        "wave": torch.randn(3, dtype=torch.complex64),
    }
    diff = diff_checkpoints(memory(tensors), memory({name: t.clone() for name, t in tensors.items()}))
    assert diff.identical
    assert {row.status for row in diff.rows} == {"identical"}
    distance = diff.rows[0].distance
    assert distance is not None
    assert (distance.l2, distance.cosine, distance.sign_agreement) == (0, pytest.approx(1), 1)


def test_minus_zero_is_not_identical_though_at_no_distance() -> None:
    diff = diff_checkpoints(memory({"x": torch.tensor([0.0])}), memory({"x": torch.tensor([-0.0])}))
    assert not diff.identical
    assert diff.total.l2 == 0


def test_what_is_missing_or_of_another_shape_has_its_row() -> None:
    a = memory({"both": torch.ones(2), "shape": torch.ones(2), "gone": torch.ones(1)})
    b = memory({"both": torch.ones(2), "shape": torch.ones(2, 1), "new": torch.ones(3)})
    diff = diff_checkpoints(a, b)
    statuses = {row.name: row.status for row in diff.rows}
    assert statuses == {
        "both": "identical",
        "shape": "shape differs",
        "gone": "only in a",
        "new": "only in b",
    }
    assert list(statuses) == ["both", "shape", "gone", "new"]
    assert not diff.identical
    row = diff.rows[3].to_dict()
    assert (row["shape_a"], row["shape_b"], row["dtype_b"]) == (None, (3,), "float32")


def test_a_tied_name_is_compared_with_what_it_is_tied_to() -> None:
    weight = torch.randn(4, 3)
    tied = memory({"embed": weight}, tied={"head": "embed"})
    untied = memory({"embed": weight, "head": weight.clone()})
    for a, b in ((tied, untied), (untied, tied)):
        diff = diff_checkpoints(a, b)
        assert [row.name for row in diff.rows] == ["embed", "head"]
        assert diff.identical
    assert [row.name for row in diff_checkpoints(tied, tied).rows] == ["embed"]


def test_values_that_are_not_finite_are_counted_and_json_stays_json() -> None:
    a = memory({"x": torch.tensor([1.0, float("inf"), float("nan"), 4.0])})
    b = memory({"x": torch.tensor([1.0, 2.0, 3.0, 4.0])})
    for one, other in ((a, b), (b, a)):
        diff = diff_checkpoints(one, other)
        assert diff.total.not_finite == 2
        assert math.isnan(diff.total.max_abs)
        text = json.dumps(diff.to_dict(), allow_nan=False)
        assert json.loads(text)["total"]["l2"] is None


def test_threads_do_not_change_the_result_and_the_largest_come_first() -> None:
    generator = torch.Generator().manual_seed(0)
    a = memory({str(k): torch.randn(50, generator=generator) for k in range(9)})
    b = memory({name: t.source * (1 + int(name)) for name, t in a.tensors.items()})  # type: ignore[attr-defined]
    one = diff_checkpoints(a, b)
    assert diff_checkpoints(a, b, threads=4) == one
    assert [row.name for row in largest_differences(one.rows, 3)] == ["8", "7", "6"]


def test_two_empty_checkpoints_are_identical() -> None:
    assert diff_checkpoints(memory({}), memory({})).identical


def test_whatever_opens_can_be_compared_and_inspected(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2, 3)}, tmp_path / "a.safetensors")
    found = diff_checkpoints(str(tmp_path / "a.safetensors"), {"w": torch.ones(2, 3)})
    assert found.rows[0].status == "differs"
    assert inspect_checkpoint(tmp_path / "a.safetensors").parameters == 6
    with pytest.raises(InputError, match="nowhere"):
        diff_checkpoints(tmp_path / "a.safetensors", tmp_path / "nowhere")

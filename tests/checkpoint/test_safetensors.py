"""Safetensors files: every type reads back, and no header that the format forbids is accepted."""

from __future__ import annotations

import json
import os
import pickle
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from plait.checkpoint import _files
from plait.checkpoint._safetensors import DTYPES, open_safetensors
from plait.checkpoint._tensor import LazyTensor
from plait.errors import InputError


def raw_file(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(start: int, stop: int, shape: list[int] | None = None, dtype: object = "U8") -> dict[str, object]:
    return {
        "dtype": dtype,
        "shape": [stop - start] if shape is None else shape,
        "data_offsets": [start, stop],
    }


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and bytes(a.reshape(-1).view(torch.uint8).numpy()) == bytes(b.reshape(-1).view(torch.uint8).numpy())
    )


@pytest.mark.parametrize("dtype", sorted(set(DTYPES.values()), key=str))
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 4), (2, 3, 4)])
def test_every_type_and_shape_reads_back_bit_for_bit(
    tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    count = torch.Size(shape).numel() * dtype.itemsize
    bits = torch.arange(count, dtype=torch.uint8) % (2 if dtype == torch.bool else 251)
    tensor = bits.view(dtype).reshape(shape)
    save_file({"first": torch.ones(3), "x": tensor}, tmp_path / "a.safetensors")
    found = open_safetensors(tmp_path / "a.safetensors").tensors["x"]
    assert isinstance(found, LazyTensor)
    assert found.nbytes == count
    assert same_bits(found.read(), tensor)


def test_ranges_and_rows_are_slices_of_the_whole(tmp_path: Path) -> None:
    tensor = torch.randn(7, 5, dtype=torch.bfloat16)
    save_file({"x": tensor}, tmp_path / "a.safetensors")
    found = open_safetensors(tmp_path / "a.safetensors").tensors["x"]
    assert same_bits(found.read_flat(3, 11), tensor.reshape(-1)[3:11])
    assert same_bits(found.read_rows(2, 6), tensor[2:6])
    out = torch.empty(35, dtype=torch.bfloat16)[4:9]
    found.read_into(out, 30)
    assert same_bits(out, tensor.reshape(-1)[30:])
    with pytest.raises(ValueError, match="elements"):
        found.read_flat(30, 36)
    with pytest.raises(ValueError, match="contiguous"):
        found.read_into(torch.empty(4), 0)


def test_metadata_and_pickling(tmp_path: Path) -> None:
    save_file({"x": torch.ones(2)}, tmp_path / "a.safetensors", metadata={"format": "pt"})
    file = open_safetensors(tmp_path / "a.safetensors")
    assert file.metadata == {"format": "pt"}
    again = pickle.loads(pickle.dumps(file.tensors["x"]))
    assert again.path == tmp_path / "a.safetensors"
    assert torch.equal(again.read(), torch.ones(2))


HOSTILE: dict[str, tuple[object, bytes, str]] = {
    "not JSON": (b"{nonsense", b"", "not valid JSON"),
    "nested too deep": (b'{"a":' * 200_000, b"", "not valid JSON"),
    "a list": ([], b"", "not a JSON object"),
    "leading space": (b' {"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"1", "not a JSON object"),
    "not UTF-8": (b'{"\xff": 1}', b"", "not valid JSON"),
    "lone surrogate": (b'{"\\ud800": 1}', b"", "not valid Unicode"),
    "number beyond the digit limit": (b'{"x":' + b"9" * 5000 + b"}", b"", "not valid JSON"),
    "name twice": (b'{"x":%s,"x":%s}' % ((json.dumps(entry(0, 1)).encode(),) * 2), b"1", "'x' twice"),
    "key twice": (
        b'{"x":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b"1",
        "not one dtype, shape and data_offsets",
    ),
    "entry a number": ({"x": 3}, b"", "header entry is 3"),
    "entry a list of pairs": ({"x": [["dtype", "U8"]]}, b"", "header entry is"),
    "key missing": ({"x": {"dtype": "U8", "shape": [1]}}, b"1", "header entry is"),
    "unknown dtype": ({"x": entry(0, 1, dtype="U9")}, b"1", "dtype 'U9' is unknown"),
    "dtype a list": ({"x": entry(0, 1, dtype=["U8"])}, b"1", "is unknown"),
    "shape negative": ({"x": entry(0, 1, [-1, -1])}, b"1", "not a list of sizes"),
    "shape a float": (
        {"x": {"dtype": "U8", "shape": [1.0], "data_offsets": [0, 1]}},
        b"1",
        "not a list of sizes",
    ),
    "shape a bool": (
        {"x": {"dtype": "U8", "shape": [True], "data_offsets": [0, 1]}},
        b"1",
        "not a list of sizes",
    ),
    "shape a word": (
        {"x": {"dtype": "U8", "shape": "1", "data_offsets": [0, 1]}},
        b"1",
        "not a list of sizes",
    ),
    "rank of 65": ({"x": entry(0, 1, [1] * 65)}, b"1", "not a list of sizes"),
    "shape huge but empty": ({"x": entry(0, 0, [2**62, 4, 0])}, b"", "too large"),
    "size of 2**80": ({"x": entry(0, 1, [2**80])}, b"1", "not a list of sizes"),
    "offsets reversed": ({"x": entry(1, 0, [1])}, b"1", "not a start and a stop"),
    "offsets negative": ({"x": entry(-1, 0, [1])}, b"1", "not a start and a stop"),
    "three offsets": ({"x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 1]}}, b"1", "not a start"),
    "size mismatch": ({"x": entry(0, 3, [1, 2])}, b"123", "takes 2 bytes"),
    "overlap": ({"x": entry(0, 2), "y": entry(1, 3)}, b"123", "overlap"),
    "hole": ({"x": entry(0, 1), "y": entry(2, 3)}, b"123", "belong to no tensor"),
    "out of file": ({"x": entry(0, 5)}, b"1234", "cut short"),
    "bytes left over": ({"x": entry(0, 3)}, b"1234", "1 bytes after its last tensor"),
    "metadata with a number": ({"__metadata__": {"a": 1}}, b"", "__metadata__"),
    "metadata a list": ({"__metadata__": []}, b"", "__metadata__"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_header_is_refused_by_file_and_tensor(tmp_path: Path, case: str) -> None:
    header, data, message = HOSTILE[case]
    path = raw_file(tmp_path / "bad.safetensors", header, data)
    with pytest.raises(InputError) as caught:
        open_safetensors(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    if "dtype" in case or "offsets" in case or case in {"overlap", "hole"}:
        assert "tensor '" in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"", b"\x01", b"\xff" * 8, b"\xff" * 100, (50).to_bytes(8, "little") + b"{}"]
)
def test_files_cut_short_or_of_another_kind_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"bad\.safetensors"):
        open_safetensors(path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_opens_or_is_refused_but_never_crashes(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.int8)}, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        tensors = open_safetensors(path).tensors
    except InputError:
        return
    for tensor in tensors.values():
        assert tensor.read().numel() * tensor.dtype.itemsize == tensor.nbytes


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "U8"]) | json_values,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | json_values,
        "data_offsets": st.lists(st.integers(-1, 40), min_size=2, max_size=2) | json_values,
    }
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.dictionaries(st.text(max_size=3), entries | json_values, max_size=3), size=st.integers(0, 40)
)
def test_what_is_accepted_covers_the_file_exactly(
    tmp_path: Path, header: dict[str, object], size: int
) -> None:
    path = raw_file(tmp_path / "a.safetensors", header, bytes(size))
    try:
        file = open_safetensors(path)
    except InputError:
        return
    assert sum(tensor.nbytes for tensor in file.tensors.values()) == size
    ends = 8 + len(file.header)
    for tensor in file.tensors.values():
        assert tensor.offset == ends
        ends += tensor.nbytes


def test_a_file_that_shrinks_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.ones(10_000)}, path)
    tensor = open_safetensors(path).tensors["x"]
    os.truncate(path, 5000)
    with pytest.raises(InputError, match=r"tensor `x`: the file shrank while being read"):
        tensor.read()
    _files.close_idle_files()
    with pytest.raises(InputError, match="changed while being read"):
        tensor.read()
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        tensor.read()


def test_a_file_written_anew_under_the_same_path_is_not_mixed_up_with_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for value in (1.0, 2.0, 3.0):
        save_file({"x": torch.full((4,), value)}, tmp_path / "new")
        (tmp_path / "new").replace(path)
        assert open_safetensors(path).tensors["x"].read().tolist() == [value] * 4


def test_more_files_than_descriptors_read_from_many_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = _files._DescriptorPool(limit=3)
    monkeypatch.setattr(_files, "_pool", pool)
    for index in range(10):
        save_file({"x": torch.full((100,), float(index))}, tmp_path / f"{index}.safetensors")
    tensors = [open_safetensors(tmp_path / f"{index}.safetensors").tensors["x"] for index in range(10)]
    wrong: list[int] = []

    def work(offset: int) -> None:
        for step in range(200):
            index = (offset + step * 7) % 10
            if set(tensors[index].read().tolist()) != {float(index)}:
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(pool._handles) <= 3
    pool.close_idle()
    assert not pool._handles


@pytest.mark.parametrize("missing", [("preadv",), ("preadv", "pread")])
def test_systems_without_positioned_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...]
) -> None:
    for function in missing:
        monkeypatch.delattr(os, function, raising=False)
    save_file({"x": torch.arange(50.0)}, tmp_path / "a.safetensors")
    found = open_safetensors(tmp_path / "a.safetensors").tensors["x"]
    assert found.read_flat(10, 20).tolist() == list(range(10, 20))


def test_not_a_regular_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a regular file"):
        open_safetensors(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="leads nowhere"):
        open_safetensors(tmp_path / "link")


def test_a_hundred_thousand_tensors_open(tmp_path: Path) -> None:
    header = {f"model.layers.{k // 100}.experts.{k % 100}.weight": entry(k, k + 1) for k in range(100_000)}
    path = raw_file(tmp_path / "a.safetensors", header, bytes(100_000))
    tensors = open_safetensors(path).tensors
    assert len(tensors) == 100_000
    assert tensors["model.layers.999.experts.99.weight"].nbytes == 1

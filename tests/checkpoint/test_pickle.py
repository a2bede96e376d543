"""PyTorch files: read lazily and by offset, refused where they want to run code."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
import torch

from plait.checkpoint import FileTensor, open_checkpoint
from plait.errors import InputError


def save(tmp_path: Path, value: object, **options: object) -> Path:
    torch.save(value, tmp_path / "a.pt", **options)
    return tmp_path / "a.pt"


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_of_every_layout_read_back(tmp_path: Path, zipped: bool) -> None:
    base = torch.randn(6, 5)
    state = {
        "base": base,
        "transposed": base.t(),
        "rows": base[2:4],
        "every_other": base[:, ::2],
        "half": torch.randn(3).to(torch.bfloat16),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 2),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "expanded": torch.ones(1, 3).expand(4, 3),
    }
    opened = open_checkpoint(save(tmp_path, state, _use_new_zipfile_serialization=zipped))
    assert list(opened) == list(state)
    for name, tensor in state.items():
        assert torch.equal(opened[name].read(), tensor)
        last = tensor.numel()
        assert torch.equal(opened[name].read_flat(last // 2, last), tensor.reshape(-1)[last // 2 :])
    assert isinstance(opened["rows"], FileTensor) == zipped


def test_ranges_of_a_view_are_those_of_the_whole(tmp_path: Path) -> None:
    view = torch.randn(5, 4, 3).permute(2, 0, 1)
    opened = open_checkpoint(save(tmp_path, {"w": view}))["w"]
    flat = view.reshape(-1)
    for start in range(60):
        for stop in range(start, 61):
            assert torch.equal(opened.read_flat(start, stop), flat[start:stop])


def test_an_expanded_tensor_is_never_there_as_a_whole(tmp_path: Path) -> None:
    opened = open_checkpoint(save(tmp_path, {"w": torch.arange(3.0).expand(2**40, 3)}))
    assert opened["w"].read_flat(3 * 2**39 + 1, 3 * 2**39 + 6).tolist() == [1, 2, 0, 1, 2]


@pytest.mark.parametrize("zipped", [True, False])
def test_shared_tensors_are_tied(tmp_path: Path, zipped: bool) -> None:
    weight = torch.randn(3, 2)
    state = {"embed": weight, "head": weight, "view": weight[1:], "e": torch.zeros(0), "f": torch.zeros(0)}
    opened = open_checkpoint(save(tmp_path, state, _use_new_zipfile_serialization=zipped))
    assert opened.tied == {"head": "embed"}
    assert list(opened) == ["embed", "view", "e", "f"]


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "module"])
def test_a_wrapped_state_dict_is_unwrapped(tmp_path: Path, key: str) -> None:
    value = {key: {"w": torch.ones(2), "w._extra_state": None}, "epoch": 3, "optimizer": {"state": {}}}
    assert list(open_checkpoint(save(tmp_path, value))) == ["w"]
    assert list(open_checkpoint(save(tmp_path, {"model": value}))) == ["w"]


class Wants:
    """A pickle that runs a command when it is loaded."""

    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_a_pickle_that_wants_more_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for zipped in (True, False):
        path = save(tmp_path, {"w": torch.ones(1), "x": Wants()}, _use_new_zipfile_serialization=zipped)
        with pytest.raises(InputError, match=r"a\.pt: this pickle is refused: it wants `\w+\.system`"):
            open_checkpoint(path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([torch.ones(1)], "this is a list, not a state dict"),
        ({"w": torch.ones(1), "epoch": 3}, "no tensors: `epoch`"),
        ({"w": torch.eye(2).to_sparse()}, "only dense tensors"),
        ({"w": torch.ones(2, dtype=torch.complex128)}, "only dense tensors"),
        ({"epoch": 3}, "no tensors: `epoch`"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, value: object, text: str) -> None:
    with pytest.raises(InputError, match=text):
        open_checkpoint(save(tmp_path, value))


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(60), b"\x80\x02." * 9])
def test_corrupt_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.bin"):
        open_checkpoint(tmp_path / "a.bin")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, {"w": torch.randn(50)})
    content = path.read_bytes()
    for end in range(0, len(content), 37):
        path.write_bytes(content[:end])
        with pytest.raises(InputError):
            open_checkpoint(path)


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, {"w": torch.zeros(500)})
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(InputError, match="compressed"):
        open_checkpoint(path)


def test_a_storage_smaller_than_its_tensor_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, {"w": torch.zeros(500)})
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data[:100] if "/data/" in name else data)
    with pytest.raises(InputError, match="tensor 'w': it wants 2000 bytes"):
        open_checkpoint(path)


def test_a_file_that_shrinks_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    path = save(tmp_path, {"w": torch.randn(100_000)})
    opened = open_checkpoint(path)
    os.truncate(path, 2000)
    with pytest.raises(InputError, match="shrank while being read"):
        opened["w"].read()


def test_a_folder_of_pytorch_shards(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model-00001-of-00002.bin")
    torch.save({"b": torch.ones(2)}, tmp_path / "pytorch_model-00002-of-00002.bin")
    torch.save({}, tmp_path / "training_args.bin")
    assert list(open_checkpoint(tmp_path)) == ["a", "b"]
    index = (
        '{"weight_map": {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}}'
    )
    (tmp_path / "pytorch_model.bin.index.json").write_text(index)
    opened = open_checkpoint(tmp_path)
    assert list(opened) == ["a", "b"]
    assert len(opened.fingerprint) == 2

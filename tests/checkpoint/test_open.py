"""Which words open what: paths, revisions, adapters, and what is said where nothing is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import MODELS

from plait.checkpoint import open_checkpoint, open_model, parse_reference
from plait.checkpoint._reference import Part, Reference
from plait.errors import InputError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/name", Reference(Part("org/name"))),
        ("org/name@v1", Reference(Part("org/name", "v1"))),
        ("org/name@refs/pr/1", Reference(Part("org/name", "refs/pr/1"))),
        ("a/b@r1+c/d@r2", Reference(Part("a/b", "r1"), Part("c/d", "r2"))),
        ("a/b+c/d", Reference(Part("a/b"), Part("c/d"))),
        ("s3://bucket/m@x/", Reference(Part("s3://bucket/m@x/"))),
        ("hf://a/b+hf://c/d", Reference(Part("hf://a/b"), Part("hf://c/d"))),
        ("+a", Reference(Part("+a"))),
        ("a+", Reference(Part("a+"))),
        ("@", Reference(Part("@"))),
        ("name@", Reference(Part("name@"))),
        ("git+https://x/y", Reference(Part("git+https://x/y"))),
    ],
)
def test_references_are_read(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected


def test_paths_as_written_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ["a+b", "a@b", "base", "x+y@z"]:
        (tmp_path / name).mkdir()
    assert parse_reference("a+b") == Reference(Part("a+b"))
    assert parse_reference("a@b") == Reference(Part("a@b"))
    assert parse_reference("a@b@main") == Reference(Part("a@b", "main"))
    assert parse_reference("a+b+base") == Reference(Part("a+b"), Part("base"))
    assert parse_reference("base+a+b") == Reference(Part("base"), Part("a+b"))
    assert parse_reference("x+y@z+base@r") == Reference(Part("x+y@z"), Part("base", "r"))


def test_one_file_as_words_and_as_a_path(tmp_path: Path) -> None:
    path = tmp_path / "a+b@c.safetensors"
    save_file({"x": torch.arange(3.0)}, path)
    for reference in (str(path), path):
        opened = open_checkpoint(reference)
        assert opened.reference == str(path)
        assert opened["x"].read().tolist() == [0, 1, 2]
        assert list(opened.fingerprint) == [path.name]
        assert opened.folder is None
    assert open_checkpoint(opened) is opened


def test_an_index_opens_its_shards(zoo) -> None:
    folder = zoo.folder("llama", max_shard_size="5KB")
    assert set(open_checkpoint(folder / "model.safetensors.index.json")) == set(open_checkpoint(folder))


def test_a_wrong_path_suggests_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "mistral").mkdir()
    with pytest.raises(InputError, match="no such file or folder") as caught:
        open_checkpoint(f"{tmp_path}/mistrla")
    assert caught.value.hint == "did you mean `mistral`?"
    with pytest.raises(InputError, match="does not exist either"):
        open_checkpoint(f"{tmp_path}/a/b/c")
    with pytest.raises(InputError, match="no such file"):
        open_checkpoint(tmp_path / "gone")
    for name in ("model.safetensors", "MODEL.SAFETENSORS", "model.safetensors.index.json"):
        with pytest.raises(InputError, match="no such file"):
            open_checkpoint(name)  # which could be a name on the hub
    with pytest.raises(InputError, match="the reference is empty"):
        open_checkpoint("  ")


@pytest.mark.parametrize("name", ["a.txt", "a.h5", "a"])
def test_a_file_of_an_unknown_kind(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match="weights of this kind are not known"):
        open_checkpoint(tmp_path / name)


def test_null_bytes_and_endless_names_are_no_tracebacks() -> None:
    for text in ("a\0b", "/" + "x" * 5000, "~nobody_of_that_name/x"):
        with pytest.raises(InputError):
            open_checkpoint(text)


@pytest.fixture(scope="module")
def adapter(zoo, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A LoRA adapter's folder that names the zoo's llama, and the weights of the two merged by PEFT."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    wrapped = get_peft_model(MODELS["llama"](), config)
    wrapped.peft_config["default"].base_model_name_or_path = str(zoo.folder("llama"))
    folder = tmp_path_factory.mktemp("adapter")
    wrapped.save_pretrained(str(folder))
    return folder, wrapped.merge_and_unload().state_dict()


def test_an_adapter_over_its_base_alone_and_over_the_base_it_names(zoo, adapter) -> None:
    folder, merged = adapter
    both = open_checkpoint(f"{zoo.folder('llama')}+{folder}")
    for opened in (both, open_model(folder), open_model(str(folder)), open_model(both)):
        assert set(opened) == set(merged)
        for name, tensor in merged.items():
            torch.testing.assert_close(opened[name].read(), tensor, rtol=1e-6, atol=1e-7)
    assert both.reference == f"{zoo.folder('llama')}+{folder}"
    assert open_model(folder).reference == str(folder)
    alone = open_checkpoint(folder)
    assert all("lora_" in name for name in alone)
    assert open_model(zoo.folder("llama")).fingerprint == open_checkpoint(zoo.folder("llama")).fingerprint


def test_an_adapter_that_names_no_base(adapter, tmp_path: Path) -> None:
    shutil.copytree(adapter[0], tmp_path / "a")
    config = json.loads((tmp_path / "a/adapter_config.json").read_text()) | {"base_model_name_or_path": None}
    (tmp_path / "a/adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="names no base"):
        open_model(tmp_path / "a")

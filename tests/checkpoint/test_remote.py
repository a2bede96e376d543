"""Remote models: the hub through its cache, S3, HTTP and memory through ours; no half download is kept."""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
import torch
from moto.server import ThreadedMotoServer
from safetensors.torch import save, save_file

from plait.checkpoint import open_checkpoint
from plait.checkpoint._needed import needed_files
from plait.checkpoint._remote import fetch
from plait.checkpoint._url import cache_folder
from plait.errors import InputError, MissingExtra

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = {"a.weight": torch.arange(12.0).reshape(3, 4)}


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "plait-cache"))
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # whatever this shell says


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def cached_repository(hub: Path, repo: str = "org/tiny") -> Path:
    """What huggingface_hub leaves behind for a model that it has fetched."""
    home = hub / f"models--{repo.replace('/', '--')}"
    snapshot = home / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (home / "blobs").mkdir()
    (home / "refs").mkdir()
    for revision in ("main", "v1"):
        (home / "refs" / revision).write_text(COMMIT)
    files = {"model.safetensors": save(WEIGHTS), "config.json": b'{"model_type": "llama"}'}
    for name, data in files.items():
        blob = home / "blobs" / hashlib.sha256(data).hexdigest()
        blob.write_bytes(data)
        (snapshot / name).symlink_to(blob)
    return snapshot


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("reference", "revision"),
    [
        ("org/tiny", None),
        ("org/tiny@v1", None),
        ("org/tiny", "v1"),
        (f"org/tiny@{COMMIT}", None),
        ("hf://org/tiny", None),
        ("hf://org/tiny@main", None),
    ],
)
def test_the_hubs_cache_is_used_offline(tmp_path: Path, reference: str, revision: str | None) -> None:
    snapshot = cached_repository(tmp_path / "hub")
    assert fetch(reference, revision) == (snapshot, COMMIT)


@pytest.mark.usefixtures("offline")
def test_a_hub_model_opens_with_its_commit(tmp_path: Path) -> None:
    cached_repository(tmp_path / "hub")
    checkpoint = open_checkpoint("org/tiny@v1")
    assert checkpoint.revision == COMMIT
    assert checkpoint.reference == "org/tiny@v1"
    assert torch.equal(checkpoint["a.weight"].read(), WEIGHTS["a.weight"])
    path, _ = fetch("hf://org/tiny/model.safetensors")
    assert path.name == "model.safetensors"


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("reference", ["org/absent", "org/tiny@v9", "hf://org/tiny@v9"])
def test_what_is_not_cached_offline_names_repository_and_revision(tmp_path: Path, reference: str) -> None:
    cached_repository(tmp_path / "hub")
    with pytest.raises(InputError) as caught:
        fetch(reference)
    name, _, revision = reference.removeprefix("hf://").partition("@")
    assert name in str(caught.value)
    assert (revision or "main") in str(caught.value)
    assert f"hf download {name}" in str(caught.value)


@pytest.mark.parametrize("reference", ["hf://datasets/org/name", "a/b/c d", "hf://", "org//name"])
def test_what_is_no_model_on_the_hub_is_refused(reference: str) -> None:
    with pytest.raises(InputError):
        fetch(reference)


class _Hub(BaseHTTPRequestHandler):
    """As much of the hub's API as fetching one model takes."""

    files: ClassVar[dict[str, bytes]] = {
        "model.safetensors": save(WEIGHTS),
        "pytorch_model.bin": b"another copy",
        "config.json": b"{}",
        "preview.png": b"picture",
    }
    asked: ClassVar[list[str]] = []

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/api/models/org/tiny/revision/v9"):
            return self.reply(b"{}", body, 404, {"X-Error-Code": "RevisionNotFound"})
        if self.path.startswith("/api/models/org/gated"):
            return self.reply(b"{}", body, 403, {"X-Error-Code": "GatedRepo"})
        if self.path.startswith("/api/models/org/tiny/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in self.files.items()
            ]
            return self.reply(json.dumps(tree).encode(), body, 200, {"Content-Type": "application/json"})
        if self.path.startswith("/api/models/org/tiny"):
            siblings = [{"rfilename": name} for name in self.files]
            info = {"id": "org/tiny", "modelId": "org/tiny", "sha": COMMIT, "siblings": siblings, "tags": []}
            return self.reply(json.dumps(info).encode(), body, 200, {"Content-Type": "application/json"})
        data = self.files.get(self.path.rsplit("/", 1)[-1])
        if data is None or "/resolve/" not in self.path:
            return self.reply(b"{}", body, 404, {"X-Error-Code": "RepoNotFound"})
        etag = hashlib.sha256(data).hexdigest()
        return self.reply(data, body, 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'})

    def reply(self, data: bytes, body: bool, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


def serve(handler: Any) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    from huggingface_hub import constants

    _Hub.asked.clear()
    for address in serve(_Hub):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        pattern = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", pattern)
        yield _Hub.asked


def test_only_what_is_needed_is_fetched_from_the_hub(hub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    path, commit = fetch("org/tiny")
    assert commit == COMMIT
    assert {file.name for file in path.iterdir()} == {"model.safetensors", "config.json"}
    assert not any("pytorch_model.bin" in request for request in hub)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch("org/tiny") == (path, commit)
    assert torch.equal(open_checkpoint(path)["a.weight"].read(), WEIGHTS["a.weight"])


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("reference", "words"),
    [("org/tiny@v9", "no revision `v9`"), ("org/none", "org/none"), ("org/gated", "gated")],
)
def test_the_hubs_refusals_say_what_to_do(reference: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        fetch(reference)
    assert caught.value.hint


def test_a_cached_model_opens_without_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    snapshot = cached_repository(tmp_path / "hub")
    assert fetch("org/tiny") == (snapshot, COMMIT)
    with pytest.raises(InputError, match=r"org/other.*can't be fetched"):
        fetch("org/other")


def entries() -> list[str]:
    home = cache_folder() / "remote"
    return sorted(path.name for path in home.iterdir()) if home.is_dir() else []


@pytest.fixture
def memory() -> Iterator[str]:
    fs = fsspec.filesystem("memory")
    root = f"/{uuid.uuid4().hex}"
    fs.pipe(f"{root}/model.safetensors", save(WEIGHTS))
    fs.pipe(f"{root}/config.json", b"{}")
    fs.pipe(f"{root}/optimizer.pt", b"left out")
    yield f"memory:/{root}"
    fs.rm(root, recursive=True)


def test_a_folder_is_copied_once_and_again_when_it_changes(memory: str) -> None:
    path, commit = fetch(memory)
    assert commit is None
    assert {file.name for file in path.iterdir()} == {"model.safetensors", "config.json"}
    assert fetch(memory) == (path, None)
    fs = fsspec.filesystem("memory")
    fs.pipe(f"{memory.removeprefix('memory:/')}/model.safetensors", save({"b": torch.ones(5)}))
    again, _ = fetch(memory)
    assert again != path
    assert list(open_checkpoint(memory)) == ["b"]


def test_a_single_file_is_copied(memory: str) -> None:
    path, _ = fetch(f"{memory}/model.safetensors")
    assert path.name == "model.safetensors"
    assert torch.equal(open_checkpoint(path)["a.weight"].read(), WEIGHTS["a.weight"])


def test_a_failed_copy_leaves_nothing(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    real = MemoryFileSystem.open

    def failing(self: Any, path: str, *args: Any, **options: Any) -> Any:
        if path.endswith("model.safetensors"):
            raise ConnectionResetError("the line went dead")
        return real(self, path, *args, **options)

    monkeypatch.setattr(MemoryFileSystem, "open", failing)
    with pytest.raises(InputError, match="the line went dead"):
        fetch(memory)
    assert entries() == []


def test_a_short_copy_is_an_error_and_leaves_nothing(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from plait.checkpoint import _url

    real = _url._described
    monkeypatch.setattr(_url, "_described", lambda p, n, info: real(p, n, {**info, "size": info["size"] + 1}))
    with pytest.raises(InputError, match=r"of \d+ bytes"):
        fetch(memory)
    assert entries() == []


def test_local_urls_are_not_copied(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    assert fetch(f"file://{tmp_path}/model.safetensors") == (tmp_path / "model.safetensors", None)
    with pytest.raises(InputError, match="no such file"):
        fetch(f"file://{tmp_path}/absent")


def test_http_files_are_copied(tmp_path: Path) -> None:

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    save_file(WEIGHTS, tmp_path / "model.safetensors")
    for address in serve(partial(Quiet, directory=str(tmp_path))):
        path, _ = fetch(f"{address}/model.safetensors")
        assert torch.equal(open_checkpoint(path)["a.weight"].read(), WEIGHTS["a.weight"])
        with pytest.raises(InputError, match="no such file"):
            fetch(f"{address}/absent.safetensors")
        with pytest.raises(InputError) as caught:
            fetch(f"{address.replace('//', '//user:secret@')}/absent?token=secret")
        assert "secret" not in str(caught.value)


def test_s3_folders_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        fs = fsspec.filesystem("s3", skip_instance_cache=True)
        fs.mkdir("models")
        fs.pipe("models/tiny/model.safetensors", save(WEIGHTS))
        fs.pipe("models/tiny/config.json", b"{}")
        path, _ = fetch("s3://models/tiny")
        assert {file.name for file in path.iterdir()} == {"model.safetensors", "config.json"}
        assert torch.equal(open_checkpoint("s3://models/tiny")["a.weight"].read(), WEIGHTS["a.weight"])
        assert len(entries()) == 1
        with pytest.raises(InputError, match="s3://models/none"):
            fetch("s3://models/none")
    finally:
        server.stop()


def test_unknown_protocols_missing_packages_and_revisions_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="nonsense"):
        fetch("nonsense://host/model")
    with pytest.raises(InputError, match="revision `v1`"):
        fetch("memory://model", "v1")
    import fsspec.core

    def missing(url: str) -> Any:
        raise ImportError("Install adlfs to access Azure Datalake Gen2")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(MissingExtra, match="adlfs"):
        fetch("abfs://host/model")


@pytest.mark.parametrize(
    ("files", "kept"),
    [
        (["model.safetensors", "tf_model.h5", "onnx/model.onnx", "1.png"], ["model.safetensors"]),
        (["pytorch_model.bin", "a.json", "checkpoint-5/optimizer.pt"], ["a.json", "pytorch_model.bin"]),
        (["model.safetensors", "consolidated.safetensors", "original/c.pth"], ["model.safetensors"]),
        (["model.fp16.safetensors", "model.safetensors"], ["model.safetensors"]),
        (["unet/w.safetensors", "unet/w.fp16.safetensors", "model_index.json"],
         ["model_index.json", "unet/w.safetensors"]),
        (["q4.gguf", "README.md"], ["README.md", "q4.gguf"]),
    ],
)  # fmt: skip
def test_one_copy_of_the_weights_is_needed(files: list[str], kept: list[str]) -> None:
    assert needed_files(files, "", "org/name") == kept


def test_a_choice_of_quantisations_must_be_made() -> None:
    with pytest.raises(InputError, match="several GGUF"):
        needed_files(["a.gguf", "b.gguf"], "", "org/name")
    assert needed_files(["a.gguf", "b.gguf"], "b.gguf", "org/name") == ["b.gguf"]

"""Which of a remote folder's files are worth fetching: one copy of the weights and what travels with it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from plait.checkpoint._json import some
from plait.errors import InputError

_TORCH = (".bin", ".pt", ".pth", ".ckpt")
_OTHER_WEIGHTS = (".h5", ".msgpack", ".ot", ".onnx", ".onnx_data", ".tflite", ".npz", ".mlmodel", ".ggml")
_MEDIA = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".mp4", ".wav", ".mp3", ".flac", ".pdf", ".svg", ".zip")
_TRAINING = ("optimizer.", "scheduler.", "rng_state", "training_args.", "scaler.", "trainer_state.")


def needed_files(files: Iterable[str], path: str, where: str) -> list[str]:
    """The files to fetch, of those that there are.

    safetensors come before PyTorch files, these before GGUF; weights in sub-folders are another model's,
    except in a pipeline (Diffusers, sentence-transformers); media and a trainer's state are left out.

    Args:
        files: relative POSIX paths.
        path: only what lies under this folder, or is this file; empty for all.
        where: the model, for messages.

    Raises:
        InputError: nothing is at `path`, there are no weights, or several GGUF files to choose from.
    """
    names = sorted(files)
    if path in names:
        return [path]
    root = f"{path}/" if path else ""
    inner = [name.removeprefix(root) for name in names if name.startswith(root)]
    if not inner:
        raise InputError(f"there is no `{path}`" if path else "there are no files", where=where)
    pipeline = "model_index.json" in inner or "modules.json" in inner
    chosen = _weights(inner, pipeline, where)
    travelling = [name for name in inner if not _is_weight(name) and not _is_left_out(name)]
    return [f"{root}{name}" for name in sorted({*chosen, *travelling})]


def _weights(names: list[str], pipeline: bool, where: str) -> list[str]:
    """One copy of the weights, with its index."""
    own = [name for name in names if pipeline or "/" not in name]
    for suffixes in ((".safetensors",), _TORCH):
        found = [name for name in own if name.endswith(suffixes) and not _is_left_out(name)]
        if found:
            return _without_copies(found, pipeline)
    quantised = [name for name in own if name.endswith(".gguf")]
    if len(quantised) > 1:
        hint = f"name one of them: `hf://{where.split('@', 1)[0]}/{quantised[0]}`"
        raise InputError(f"several GGUF files to choose from: {some(quantised)}", where=where, hint=hint)
    if not quantised:
        raise InputError("it has no weights that plait reads", where=where)
    return quantised


def _without_copies(names: list[str], pipeline: bool) -> list[str]:
    """Without a second copy in another layout (`consolidated…`) or type (`….fp16.…`)."""
    plain = {name for name in names if not _variant(name)}
    if pipeline:
        folders = {str(PurePosixPath(name).parent) for name in plain}
        return [name for name in names if name in plain or str(PurePosixPath(name).parent) not in folders]
    standard = [name for name in plain if name.startswith(("model", "pytorch_model", "adapter_model"))]
    return sorted(standard or plain or names)


def _variant(name: str) -> bool:
    return any(f".{kind}" in PurePosixPath(name).name for kind in ("fp16", "bf16", "fp32", "ema", "non_ema"))


def _is_weight(name: str) -> bool:
    return name.endswith((".safetensors", ".gguf", *_TORCH, *_OTHER_WEIGHTS))


def _is_left_out(name: str) -> bool:
    last = PurePosixPath(name).name
    hidden = any(part.startswith(".") for part in name.split("/"))
    checkpoint = any(part.startswith("checkpoint-") for part in name.split("/")[:-1])
    return hidden or checkpoint or last.lower().endswith(_MEDIA) or last.startswith(_TRAINING)

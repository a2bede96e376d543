"""What the bytes of an output depend on, in one digest: recipe, inputs, code, version, options that count."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import marshal
import pickle
import uuid
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from plait.checkpoint import Checkpoint, content_hash
from plait.engine._limits import cores
from plait.methods import METHODS, package_of
from plait.recipe import ModelRef, recipe_to_dict

if TYPE_CHECKING:
    from plait.engine._plan import Plan

#: Options that change the output's bytes.
COUNTED = ("float64", "allow_nan", "max_shard_size")
_LIBRARIES = ("torch", "numpy", "numba")


def plan_digest(plan: Plan) -> str:
    """Identifies the bytes that a plan makes.

    Raises:
        InputError: an input can't be read.
    """
    from plait import __version__

    content = {
        "recipe": recipe_to_dict(plan.recipe),
        "inputs": {ref.text: _input(plan, ref, c) for ref, c in plan.opened.items()},
        "stages": [stage.plan.digest for stage in plan.stages],
        "code": _code(plan),
        "version": __version__,
        "options": {name: getattr(plan.options, name) for name in COUNTED},
    }
    return hashlib.blake2b(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:64]


def run_identity(plan: Plan) -> dict[str, str]:
    """What a run's bytes depend on: the plan, and what computes."""
    libraries = {name: version(name) for name in _LIBRARIES}
    return {"plan": plan.digest, "device": torch.device(plan.options.device).type, **libraries}


def weights_identity(plan: Plan, ref: ModelRef, checkpoint: Checkpoint) -> dict[str, str]:
    """An input's weights: its files' sizes, times and headers; its content with `check`, or in memory."""
    if ref in plan.staged:
        return {}
    live = ref.live is not None and not isinstance(ref.live, Checkpoint)
    if plan.options.check or live or not checkpoint.fingerprint:
        return {"content": content_hash(checkpoint, threads=plan.options.threads or cores())}
    return dict(checkpoint.fingerprint)


def _input(plan: Plan, ref: ModelRef, checkpoint: Checkpoint) -> dict[str, Any]:
    found = {"weights": plan.weights[ref], "config": dict(checkpoint.config)}
    travels = plan.recipe.tokenizer is not None or plan.recipe.chat_template is not None
    if checkpoint is plan.template or travels:
        found["files"] = {
            path.name: _file(path, content=plan.options.check) for path in _travelling(checkpoint)
        }
    return found


def _travelling(checkpoint: Checkpoint) -> Iterator[Path]:
    """Files that end in the output, and the card, which names the licence."""
    yield from (sidecar.path for sidecar in checkpoint.sidecars)
    if checkpoint.folder is not None:
        yield checkpoint.folder / "README.md"


def _file(path: Path, *, content: bool) -> str:
    try:
        if content:
            return hashlib.blake2b(path.read_bytes()).hexdigest()
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_size}-{found.st_mtime_ns}"


def _code(plan: Plan) -> str:
    """The method's code, where it does not come with plait: a file's text, a function's bytes."""
    hasher = hashlib.blake2b()
    if plan.recipe.code is not None:
        hasher.update(plan.recipe.code.read_bytes())
    package = package_of(plan.method)
    if package is not None:
        hasher.update(package.encode())
        with contextlib.suppress(TypeError, OSError):  # a package that is edited in place keeps its version
            source = inspect.getsourcefile(plan.method.combine)
            hasher.update(Path(source).read_bytes() if source else b"")
    elif METHODS.get(plan.method.name) is not plan.method:
        matrix = plan.method.matrix
        merge = () if matrix is None else (matrix.merge, matrix.applies)
        for part in _functions([plan.method.combine, plan.method.stages, *merge]):
            hasher.update(part)
    return hasher.hexdigest()


def _functions(value: Any, above: tuple[int, ...] = ()) -> Iterator[bytes]:
    """The code of a function, its defaults and what it closes over."""
    if id(value) in above:  # a function that closes over itself
        return
    above = (*above, id(value))
    code = getattr(value, "__code__", None)
    if code is not None:
        yield marshal.dumps(code)
        inner = [value.__defaults__, value.__kwdefaults__, _closed_over(value)]
    elif isinstance(value, Mapping):
        inner = [*value.keys(), *value.values()]
    elif isinstance(value, (tuple, list)):
        inner = list(value)
    else:
        yield _constant(value)
        return
    for part in inner:
        yield b"("
        yield from _functions(part, above)
        yield b")"


def _closed_over(function: Any) -> list[Any]:
    found = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # a cell that nothing was put into yet
            found.append(cell.cell_contents)
    return found


def _constant(value: Any) -> bytes:
    """A value's bytes; those of nothing else where it can't be told apart, so that no run goes on from it."""
    if isinstance(value, torch.Tensor):
        dense = value.detach().cpu().contiguous()
        return f"{dense.dtype} {dense.shape}".encode() + dense.view(-1).view(torch.uint8).numpy().tobytes()
    try:
        return pickle.dumps(value)
    except Exception:  # pickle raises whatever the object's own code does
        return uuid.uuid4().bytes

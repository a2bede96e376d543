"""What travels with the output: config, tokenizer and other files, `plait.json`, the model card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3

from plait.checkpoint import Sidecar, find_sidecars
from plait.engine._card import model_card
from plait.engine._config import output_config
from plait.engine._identity import COUNTED
from plait.engine._layout import indexes
from plait.engine._plan import Plan, describe
from plait.engine._verify import region_digest
from plait.errors import InputError
from plait.methods import package_of
from plait.recipe import Alignment, recipe_to_dict, write_chat_template, write_tokenizer


def write_beside(plan: Plan, folder: Path) -> None:
    """Write everything but the weights and `plait.json` into the output, before weights are merged.

    Args:
        plan: what is merged.
        folder: where the weights go.

    Raises:
        InputError: a file can't be copied, or the tokenizer can't be made.
    """
    template = plan.template
    try:
        if template.extras is not None:
            template.extras(folder)
        for sidecar in _sidecars(plan):
            place = folder / sidecar.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(sidecar.path, place)
        for path, text in indexes(plan.shards).items():
            _write(folder / path, text)
        if template.config:
            _write(folder / "config.json", json.dumps(output_config(plan), indent=2, ensure_ascii=False))
        if plan.alignment is not None:
            write_tokenizer(_with_files(plan, plan.alignment), folder, chat_template=plan.chat_template)
        elif plan.chat_template is not None:
            write_chat_template(plan.chat_template, folder)
        _write(folder / "README.md", model_card(plan))
    except OSError as error:
        raise _failed(error, folder) from error


def write_provenance(plan: Plan, folder: Path, digests: Mapping[str, str]) -> None:
    """Write `plait.json`, when all else is in the output.

    Args:
        plan: what was merged.
        folder: the output.
        digests: tensor → digest of its bytes.

    Raises:
        InputError: it can't be written.
    """
    try:
        files = {
            path.relative_to(folder).as_posix(): region_digest(path, 0, path.stat().st_size)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.suffix != ".safetensors" and path.name != "plait.json"
        }
        content = provenance(plan, digests, files)
        _write(folder / "plait.json", json.dumps(content, indent=1, ensure_ascii=False, default=str))
    except OSError as error:
        raise _failed(error, folder) from error


def _write(path: Path, text: str) -> None:
    # Paths of files may be no Unicode; JSON has an escape for what they hold then.
    path.write_text(text.rstrip("\n") + "\n", encoding="utf-8", errors="backslashreplace")


def _failed(error: OSError, folder: Path) -> InputError:
    return InputError(f"writing failed: {error.strerror or error}", where=str(error.filename or folder))


def _sidecars(plan: Plan) -> Sequence[Sidecar]:
    """The template's files; a stage's are those that it wrote."""
    stage = plan.staged.get(plan.template_from)
    return plan.template.sidecars if stage is None or stage.files is None else find_sidecars(stage.files)


def _with_files(plan: Plan, alignment: Alignment) -> Alignment:
    """The alignment with the folder of the tokenizer that the output's starts from."""
    stage = plan.staged.get(plan.tokenizer_from)
    if stage is None:
        return alignment
    return replace(alignment, template=replace(alignment.template, folder=stage.files))


def versions() -> dict[str, str]:
    """The libraries on which the last bit of a result may depend."""
    import numpy

    from plait import __version__

    # compiled rules only: importing these takes longer than a small merge
    compilers = {name: version(name) for name in ("numba", "llvmlite")}
    return {"plait": __version__, "torch": torch.__version__, "numpy": numpy.__version__, **compilers}


def provenance(plan: Plan, digests: Mapping[str, str], files: Mapping[str, str]) -> dict[str, Any]:
    """The content of `plait.json`: no times, nothing about the machine."""
    found = {"versions": versions(), **_origin(plan)}
    for name, digest in digests.items():
        found["tensors"][name]["digest"] = digest
    shards = {s.name: {"size": s.size, "header": blake3(s.header).hexdigest()} for s in plan.shards}
    return {**found, "shards": shards, "files": dict(files)}


def _origin(plan: Plan) -> dict[str, Any]:
    """How a plan's result comes to be, and the results of nested recipes that it is made of."""
    return {
        "plan": plan.digest,
        "conventions": plan.conventions,
        "method": plan.method.name,
        "reference": plan.method.reference,
        **({"package": package} if (package := package_of(plan.method)) else {}),
        "seed": plan.recipe.seed,
        "compute": str(plan.compute).removeprefix("torch."),
        "options": {name: getattr(plan.options, name) for name in COUNTED},
        "recipe": recipe_to_dict(plan.recipe),
        "inputs": {
            ref.text: {"revision": c.revision, "files": dict(c.fingerprint), **_content(plan.weights[ref])}
            for ref, c in plan.opened.items()
        },
        "stages": {stage.name: _origin(stage.plan) for stage in plan.stages},
        "excluded": plan.excluded,
        "warnings": plan.warnings,
        "tensors": {o.name: describe(o) for o in plan.outputs},
    }


def _content(weights: Mapping[str, str]) -> dict[str, str]:
    return {"content": weights["content"]} if "content" in weights else {}

"""What travels with the output: config, tokenizer and other files, `plait.json`, the model card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3

from plait.checkpoint import find_tied
from plait.engine._card import model_card
from plait.engine._identity import COUNTED
from plait.engine._layout import indexes
from plait.engine._plan import Plan, describe
from plait.engine._verify import region_digest
from plait.errors import InputError
from plait.recipe import recipe_to_dict, write_chat_template, write_tokenizer

_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "num_decoder_layers")
#: How configs call the type, before and since transformers 5.
_TYPES = ("torch_dtype", "dtype")
_TEXT = ("text_config", "llm_config", "language_config")


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
        for sidecar in template.sidecars:
            place = folder / sidecar.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(sidecar.path, place)
        for path, text in indexes(plan.shards).items():
            _write(folder / path, text)
        if template.config:
            _write(folder / "config.json", json.dumps(output_config(plan), indent=2, ensure_ascii=False))
        if plan.alignment is not None:
            write_tokenizer(plan.alignment, folder, chat_template=plan.chat_template)
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


def output_config(plan: Plan) -> dict[str, Any]:
    """The template's config with what the merge changed: type, vocabulary, layers, tied weights."""
    config = json.loads(json.dumps(dict(plan.template.config), default=str))
    places = [config, *(config[key] for key in _TEXT if isinstance(config.get(key), dict))]
    names = {o.name for o in plan.outputs}
    dtype = next((o.dtype for o in plan.outputs if o.how == "merge"), None)
    if dtype is not None:
        asked = plan.recipe.out_dtype or plan.recipe.dtype
        if asked and not any(key in config for key in _TYPES):
            config["torch_dtype"] = None
        for place in places:
            for key in _TYPES:
                if key in place:
                    place[key] = str(dtype).removeprefix("torch.")
    if plan.alignment is not None:
        for place in places:
            if "vocab_size" in place:
                place["vocab_size"] = plan.alignment.rows
    layers = stacked_layers(plan)
    if layers is not None:
        for place in places:
            _restack(place, layers)
    if any(alias in names for alias in _untied(plan)):
        for place in places:
            if "tie_word_embeddings" in place:
                place["tie_word_embeddings"] = False
        config["tie_word_embeddings"] = False
    return config


def _untied(plan: Plan) -> set[str]:
    """Names that the template does not store because they are tied there."""
    others = [c for c in plan.opened.values() if c is not plan.template]
    return set(find_tied(plan.template, others))


def stacked_layers(plan: Plan) -> list[int] | None:
    """For each output layer the layer of the first source it began as; None without slices."""
    ranges = [
        part.sources[0].layer_range
        for module in plan.recipe.modules
        for part in module.slices
        if part.sources and part.sources[0].layer_range is not None
    ]
    return [layer for low, high in ranges for layer in range(low, high)] or None


def _restack(place: dict[str, Any], layers: list[int]) -> None:
    old = next((place[key] for key in _COUNTS if isinstance(place.get(key), int)), None)
    if old is None:
        return
    for key in _COUNTS:
        if place.get(key) == old:
            place[key] = len(layers)
    for key, value in place.items():
        # Lists with an entry per layer (kinds of attention, say) follow their layers.
        if isinstance(value, list) and len(value) == old and max(layers) < old:
            place[key] = [value[layer] for layer in layers]


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

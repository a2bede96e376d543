"""What travels with the output: config, tokenizer and other files, `plait.json`, the model card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3

from plait.checkpoint import find_tied
from plait.engine._layout import indexes
from plait.engine._plan import Plan, describe
from plait.recipe import (
    read_chat_template,
    recipe_to_dict,
    recipe_to_yaml,
    resolve_chat_template,
    write_chat_template,
    write_tokenizer,
)

_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "num_decoder_layers")
_TEXT = ("text_config", "llm_config", "language_config")


def write_beside(plan: Plan, folder: Path, digests: Mapping[str, str]) -> None:
    """Write everything but the weights into the finished folder.

    Args:
        plan: what was merged.
        folder: where the weights are.
        digests: tensor → digest of its bytes.
    """
    template = plan.template
    for sidecar in template.sidecars:
        place = folder / sidecar.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sidecar.path, place)
    for path, text in indexes(plan.shards).items():
        (folder / path).write_text(text, encoding="utf-8")
    if template.config:
        text = json.dumps(output_config(plan), indent=2, ensure_ascii=False) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
    _write_tokenizer(plan, folder)
    (folder / "README.md").write_text(model_card(plan), encoding="utf-8")
    files = {
        path.relative_to(folder).as_posix(): blake3(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".safetensors" and path.name != "plait.json"
    }
    content = json.dumps(provenance(plan, digests, files), indent=1, ensure_ascii=False, default=str) + "\n"
    (folder / "plait.json").write_text(content, encoding="utf-8")


def _write_tokenizer(plan: Plan, folder: Path) -> None:
    recipe = plan.recipe
    chat = None
    if recipe.chat_template is not None:
        folders = [c.folder for c in plan.opened.values()]
        own = [None if found is None else read_chat_template(found) for found in folders]
        chat = resolve_chat_template(recipe.chat_template, own)
    if plan.alignment is not None:
        write_tokenizer(plan.alignment, folder, chat_template=chat)
    elif chat is not None:
        write_chat_template(chat, folder)


def output_config(plan: Plan) -> dict[str, Any]:
    """The template's config with what the merge changed: type, vocabulary, layers, tied weights."""
    config = json.loads(json.dumps(dict(plan.template.config), default=str))
    places = [config, *(config[key] for key in _TEXT if isinstance(config.get(key), dict))]
    names = {o.name for o in plan.outputs}
    dtype = next((o.dtype for o in plan.outputs if o.how == "merge"), None)
    if dtype is not None:
        for place in places:
            for key in ("dtype", "torch_dtype"):
                if isinstance(place.get(key), str):
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


def provenance(plan: Plan, digests: Mapping[str, str], files: Mapping[str, str]) -> dict[str, Any]:
    """The content of `plait.json`: no times, nothing about the machine."""
    from plait import __version__

    tensors = {o.name: {**describe(o), "digest": digests[o.name]} for o in plan.outputs}
    return {
        "plait": __version__,
        "plan": plan.digest,
        "conventions": plan.conventions,
        "method": plan.method.name,
        "reference": plan.method.reference,
        "seed": plan.recipe.seed,
        "compute": str(plan.compute).removeprefix("torch."),
        "recipe": recipe_to_dict(plan.recipe),
        "inputs": {
            ref.text: {"revision": c.revision, "files": dict(c.fingerprint)} for ref, c in plan.opened.items()
        },
        "stages": {stage.name: stage.plan.digest for stage in plan.stages},
        "excluded": plan.excluded,
        "warnings": plan.warnings,
        "shards": {s.name: {"size": s.size, "header": blake3(s.header).hexdigest()} for s in plan.shards},
        "files": dict(files),
        "tensors": tensors,
    }


def licences(plan: Plan) -> dict[str, str]:
    """Model → the licence that its card names."""
    found = {}
    for ref, checkpoint in plan.opened.items():
        card = checkpoint.folder / "README.md" if checkpoint.folder else None
        if card is not None and card.is_file():
            for line in card.read_text(encoding="utf-8", errors="replace").splitlines()[:60]:
                if line.startswith(("license:", "license_name:")):
                    found[ref.text] = line.partition(":")[2].strip()
                    break
    return found


def model_card(plan: Plan) -> str:
    """The model card, with the hub's front matter."""
    known = licences(plan)
    kinds = sorted(set(known.values()))
    lines = ["---"]
    if len(kinds) == 1:
        lines.append(f"license: {kinds[0]}")
    lines += ["base_model:", *(f"- {json.dumps(ref.text)}" for ref in plan.opened)]
    lines += ["base_model_relation: merge", "tags:", "- merge", "- plait", "---", "", "# A merged model", ""]
    lines.append(f"Made by plait with the method `{plan.method.name}` ({plan.method.reference}).")
    if len(kinds) > 1:
        told = ", ".join(f"{model}: {licence}" for model, licence in known.items())
        lines += ["", f"**The models' licences differ ({told}): check that this merge may be shared.**"]
    lines += ["", "## Recipe", "", "```yaml", recipe_to_yaml(plan.recipe).rstrip(), "```", ""]
    return "\n".join(lines)

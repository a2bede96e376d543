"""The model card: the hub's front matter, the models and their licences, and the recipe."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from plait.checkpoint import Checkpoint, is_hub_id, parse_reference
from plait.engine._plan import Plan
from plait.errors import InputError
from plait.recipe import ModelRef, parse_yaml, recipe_to_yaml

#: What of the template's own card holds for the merged model as well.
_KEPT = ("library_name", "pipeline_tag", "language")
_LONGEST = 1 << 16


def model_card(plan: Plan) -> str:
    """README.md of the output."""
    given = list(_inputs(plan))
    licences = {ref.text: _licence(checkpoint) for ref, checkpoint in given}
    kinds = {tuple(licence.items()) for licence in licences.values() if licence}
    front: dict[str, Any] = dict(next(iter(kinds))) if len(kinds) == 1 else {}
    names = list(dict.fromkeys(name for ref, _ in given for name in _base_models(ref)))
    if names:
        front |= {"base_model": names, "base_model_relation": "merge"}
    front["tags"] = ["merge", "plait"]
    own = read_card(plan.template.folder)
    front |= {key: own[key] for key in _KEPT if own.get(key)}
    recipe = recipe_to_yaml(plan.recipe).rstrip()
    fence = "```"
    while fence in recipe:
        fence += "`"
    lines = [
        *("---", yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(), "---", ""),
        *("# A merged model", ""),
        f"Made by plait with the method `{plan.method.name}` ({plan.method.reference}).",
        *("", "## Models", ""),
        *(f"- `{model}`: {_told(licence)}" for model, licence in licences.items()),
        *(["", "**These licences differ: check that this merge may be shared.**"] if len(kinds) > 1 else []),
        *("", "## Recipe", "", f"{fence}yaml", recipe, fence, ""),
    ]
    return "\n".join(lines)


def read_card(folder: Path | None) -> Mapping[str, Any]:
    """The front matter of a folder's README.md; empty where there is none that can be read."""
    if folder is None or not (folder / "README.md").is_file():
        return {}
    with (folder / "README.md").open(encoding="utf-8", errors="replace") as file:
        found = re.match(r"\s*---[ \t]*\n(.*?)\n---", file.read(_LONGEST), re.DOTALL)
    try:
        return parse_yaml(found[1], "README.md", most=_LONGEST)[0].data if found else {}
    except InputError:
        return {}


def _inputs(plan: Plan) -> Iterator[tuple[ModelRef, Checkpoint]]:
    """The models that were opened, those of nested recipes in place of what they make."""
    stages = {stage.name: stage.plan for stage in plan.stages}
    for ref, checkpoint in plan.opened.items():
        if ref.nested is not None and ref.text in stages:
            yield from _inputs(stages[ref.text])
        else:
            yield ref, checkpoint


def _licence(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the cards of a model and of its adapter say about their licence, as the hub's keys."""
    found: dict[str, Any] = {}
    for folder in (checkpoint.folder, checkpoint.adapter):
        card = read_card(folder)
        own = {key: str(card[key]) for key in ("license", "license_name", "license_link") if card.get(key)}
        if found and own and own != found:
            return {"license": f"{_told(found)} and {_told(own)}"}
        found = own or found
    return found


def _told(licence: Mapping[str, Any]) -> str:
    return licence.get("license_name") or licence.get("license") or "its card names no licence"


def _base_models(ref: ModelRef) -> Iterator[str]:
    """What the hub may take as a model's id: the id, or a local folder's name without its path."""
    if ref.live is not None:
        return
    parsed = parse_reference(ref.text)
    for part in (parsed.model, parsed.adapter):
        if part is None:
            continue
        path = Path(part.name).expanduser()
        cached = next((p for p in path.parts if p.startswith("models--")), None)
        hub = re.match(r"hf://(?:models/)?([\w.-]+/[\w.-]+)", part.name)
        if cached is not None:
            yield cached.removeprefix("models--").replace("--", "/")
        elif hub is not None:
            yield hub[1]
        elif is_hub_id(part.name) and not path.exists():
            yield part.name
        else:
            name = re.sub(r"[^\w.-]+", "-", path.absolute().name).strip("-.")
            yield from (name,) if name else ()

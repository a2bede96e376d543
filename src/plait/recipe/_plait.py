"""plait's own grammar: unknown keys are errors, filters are globs, models may be recipes themselves.

merge: ties                      # or parts, see _parts
base: path/to/base
models:
  - path/to/a
  - {model: path/to/b, weight: -0.5, density: 0.3}
  - model: {merge: linear, models: [c, d]}
parameters: {density: 0.5}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from plait.errors import InputError
from plait.recipe._document import Dtype, mapping_paths, places, validate
from plait.recipe._dump import nested_text
from plait.recipe._parts import Method
from plait.recipe._raw_tokenizer import RawTokenizer
from plait.recipe._schema import Conventions, ModelRef, Recipe
from plait.recipe._shape import BodyBuilder, RawBody, RawParameters, RawSlice, Ref
from plait.recipe._yaml import KeyPath, YamlDocument

#: What a recipe's reader gives back: what could be read of it (None: nothing), and what is wrong.
Read = tuple[Recipe | None, list[InputError]]


class PlaitSlice(RawSlice):
    """One entry of `slices`; its base is called `base`, as at the top."""

    base_model: Ref | None = Field(None, alias="base")


Globs = Annotated[tuple[str, ...], BeforeValidator(lambda v: [v] if isinstance(v, str) else v)]


class PlaitDocument(RawBody[PlaitSlice]):
    """The keys at the top of a document in plait's grammar."""

    merge: Method
    base: Ref | None = None
    parameters: RawParameters | None = None
    dtype: Dtype = None
    out_dtype: Dtype = None
    tokenizer: Annotated[
        RawTokenizer | None, BeforeValidator(lambda v: {"source": v} if isinstance(v, str) else v)
    ] = None
    chat_template: str | None = None
    exclude: Globs = ()
    keep: Globs = ()
    seed: int = Field(0, ge=0, lt=2**63, strict=True)
    conventions: Conventions = "paper"
    code: str | None = Field(None, min_length=1)
    name: str | None = Field(None, min_length=1)


def read_plait(document: YamlDocument, read: Callable[[YamlDocument], Read]) -> Read:
    """One document in plait's grammar; `read` reads a nested recipe in either grammar."""
    document = spell_out(document)
    inner_problems: list[InputError] = []
    paths = mapping_paths(document.data)

    def nested(value: dict[str, Any]) -> ModelRef:
        recipe, problems = read(document.below(paths[id(value)], value))
        inner_problems.extend(problems)
        return ModelRef("" if recipe is None else nested_text(recipe), recipe)

    raw, problems, _ = validate(PlaitDocument, document, strict=True, nested=nested)
    problems = problems + inner_problems
    if raw is None:
        return None, problems
    builder = BodyBuilder(document, raw.base, add_base=False)
    modules = builder.build(raw)
    problems += builder.problems
    recipe = Recipe(
        grammar="plait",
        conventions=raw.conventions,
        method=raw.merge,
        modules=modules,
        base=raw.base,
        parameters=raw.parameters or {},
        dtype=raw.dtype,
        out_dtype=raw.out_dtype,
        tokenizer=None if raw.tokenizer is None else raw.tokenizer.build(),
        chat_template=raw.chat_template or None,
        exclude=raw.exclude,
        keep=raw.keep,
        seed=raw.seed,
        name=raw.name,
        code=None if raw.code is None else Path(raw.code),
        origin=document.where,
        places=places(document),
    )
    return recipe, problems


def spell_out(document: YamlDocument) -> YamlDocument:
    """The document with every model as `{model, parameters}`, whatever short form it was written in."""
    lines = dict(document.lines)

    def body(data: Any, path: KeyPath) -> Any:
        if not isinstance(data, dict):
            return data
        out = dict(data)
        if isinstance(out.get("models"), list):
            out["models"] = [_entry(e, (*path, "models", i), lines) for i, e in enumerate(out["models"])]
        if isinstance(out.get("slices"), list):
            out["slices"] = [run(s, (*path, "slices", i)) for i, s in enumerate(out["slices"])]
        return out

    def run(data: Any, path: KeyPath) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("sources"), list):
            return data
        sources = [_entry(e, (*path, "sources", i), lines) for i, e in enumerate(data["sources"])]
        return {**data, "sources": sources}

    out = body(document.data, ())
    if isinstance(out.get("modules"), dict):
        out["modules"] = {name: body(m, ("modules", name)) for name, m in out["modules"].items()}
    return replace(document, data=out, lines=lines)


def _entry(entry: Any, path: KeyPath, lines: dict[KeyPath, int]) -> Any:
    if isinstance(entry, str):
        return {"model": entry}
    if not isinstance(entry, dict) or "model" not in entry:
        return entry
    given = entry.get("parameters")
    if not isinstance(given, dict | None):
        return entry
    out: dict[str, Any] = {}
    parameters: dict[str, Any] = dict(given or {})
    for key, value in entry.items():
        if key == "parameters":
            continue
        if key in ("model", "layer_range") or key in parameters or not _may_be_setting(value):
            out[key] = value
            continue
        parameters[key] = value
        if (*path, key) in lines:
            lines[(*path, "parameters", key)] = lines[(*path, key)]
    return {**out, "parameters": parameters}


def _may_be_setting(value: object) -> bool:
    """A mapping without `value` is none: `paramters: {weight: 1}` is a misspelt key, not a parameter."""
    return not isinstance(value, Mapping) or "value" in value

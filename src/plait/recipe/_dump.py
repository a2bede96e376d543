"""A recipe back as plain values: for provenance, model cards, and loading again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from plait.recipe._schema import (
    ModelRef,
    Module,
    Parameters,
    Part,
    Recipe,
    Setting,
    Slice,
    Source,
    Tokenizer,
    TokenSource,
    recipe_models,
)


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON- and YAML-able values that load again to an equal recipe.

    Stages that it builds on are under `stages`. A recipe made in Python comes out in plait's grammar;
    functions and live models come out by name, which records them and can't be loaded.
    """
    stages: dict[str, Recipe] = {}
    _collect_stages(recipe, stages)
    out = _document(recipe)
    return {"stages": [_document(stage) for stage in stages.values()], **out} if stages else out


def recipe_to_yaml(recipe: Recipe) -> str:
    """The recipe as YAML text; its stages are documents of their own, in front."""
    import yaml

    out = recipe_to_dict(recipe)
    documents = [*out.pop("stages", []), out]
    return yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=100)


def nested_text(recipe: Recipe) -> str:
    """What a nested recipe is called: its name, or its method, models and a digest of all it says."""
    if recipe.name:
        return recipe.name
    method = recipe.method if isinstance(recipe.method, str) else "pipeline"
    models = ", ".join(model.text for model in recipe_models(recipe))
    digest = hashlib.sha256(json.dumps(recipe_to_dict(recipe), sort_keys=True).encode()).hexdigest()
    return f"{method}({models})#{digest[:8]}"


def is_stage(model: ModelRef) -> bool:
    """Whether the model is a stage that is referred to by its name."""
    nested = model.nested
    return nested is not None and nested.name is not None and stage_name(model.text) == nested.name


def stage_name(text: str) -> str:
    """The part of a model's text that may be the name of a stage: without revision and adapter."""
    return text.partition("+")[0].partition("@")[0]


def _collect_stages(recipe: Recipe, found: dict[str, Recipe]) -> None:
    for model in [*recipe_models(recipe), *_tokenizer_models(recipe.tokenizer)]:
        if model.nested is None or model.nested.name in found:
            continue
        _collect_stages(model.nested, found)
        if is_stage(model) and model.nested.name is not None:
            found[model.nested.name] = model.nested


def _tokenizer_models(tokenizer: Tokenizer | None) -> list[ModelRef]:
    if tokenizer is None:
        return []
    candidates = [tokenizer.source, *(token.model for token in tokenizer.tokens.values())]
    return [model for model in candidates if isinstance(model, ModelRef)]


def _document(recipe: Recipe) -> dict[str, Any]:
    mergekit = recipe.grammar == "mergekit"
    out: dict[str, Any] = {
        "name": recipe.name,
        "merge_method" if mergekit else "merge": _method(recipe.method),
        "conventions": None if mergekit or recipe.conventions == "paper" else recipe.conventions,
        "base_model" if mergekit else "base": recipe.base and _model(recipe.base),
        **_body(recipe.modules, mergekit),
        "parameters": _parameters(recipe.parameters),
        "exclude": list(recipe.exclude),
        "keep": list(recipe.keep),
        "dtype": recipe.dtype,
        "out_dtype": recipe.out_dtype,
        "tokenizer": recipe.tokenizer and _tokenizer(recipe.tokenizer),
        "chat_template": recipe.chat_template,
        "seed": recipe.seed or None,
        "code": recipe.code and recipe.code.as_posix(),
    }
    return _without_empty(out)


def _without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None and value not in ({}, [], "")}


def _method(method: str | tuple[Part, ...] | Callable[..., object]) -> Any:
    if isinstance(method, str):
        return method
    if isinstance(method, tuple):
        return [{part.kind: part.name, **_parameters(part.options)} for part in method]
    name = getattr(method, "__qualname__", type(method).__qualname__)
    return f"{getattr(method, '__module__', '?')}:{name}"


def _model(model: ModelRef) -> Any:
    if model.nested is None or is_stage(model):
        return model.text
    return _document(model.nested)


def _parameters(parameters: Parameters) -> dict[str, Any]:
    return {key: _settings(settings) for key, settings in parameters.items()}


def _settings(settings: tuple[Setting, ...]) -> Any:
    values = [list(s.value) if isinstance(s.value, tuple) else s.value for s in settings]
    if len(settings) == 1 and settings[0].filter is None:
        return values[0]
    return [
        {"value": value} if setting.filter is None else {"filter": setting.filter, "value": value}
        for value, setting in zip(values, settings, strict=True)
    ]


def _body(modules: tuple[Module, ...], mergekit: bool) -> dict[str, Any]:
    if len(modules) == 1 and modules[0].name is None:
        return _slices(modules[0].slices, mergekit)
    return {
        "modules": {
            str(module.name): _without_empty(
                {**_slices(module.slices, mergekit), "parameters": _parameters(module.parameters)}
            )
            for module in modules
        }
    }


def _slices(slices: tuple[Slice, ...], mergekit: bool) -> dict[str, Any]:
    if len(slices) == 1 and all(source.layer_range is None for source in slices[0].sources):
        return {"models": [_source(source) for source in slices[0].sources]}
    return {
        "slices": [
            _without_empty(
                {
                    "sources": [_source(source) for source in run.sources],
                    "base_model" if mergekit else "base": run.base and _model(run.base),
                    "parameters": _parameters(run.parameters),
                }
            )
            for run in slices
        ]
    }


def _source(source: Source) -> dict[str, Any]:
    return _without_empty(
        {
            "model": _model(source.model),
            "layer_range": source.layer_range and list(source.layer_range),
            "parameters": _parameters(source.parameters),
        }
    )


def _tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    source = tokenizer.source
    return _without_empty(
        {
            "source": _model(source) if isinstance(source, ModelRef) else source,
            "tokens": {token: _token(entry) for token, entry in tokenizer.tokens.items()},
            "pad_to_multiple_of": tokenizer.pad_to_multiple_of,
        }
    )


def _token(entry: TokenSource) -> dict[str, Any]:
    source: Any = None
    if entry.kind == "zero":
        source = {"kind": "zero"}
    elif entry.model is not None:
        source = _model(entry.model)
    if entry.kind == "model_token":
        given = {"token": entry.token, "token_id": entry.token_id}
        source = {"kind": "model_token", "model": source, **{k: v for k, v in given.items() if v is not None}}
    return {**({} if source is None else {"source": source}), **({"force": True} if entry.force else {})}

"""A recipe from Python values: paths, modules in memory, or other recipes as models."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, cast

import torch
from blake3 import blake3
from pydantic_core import PydanticCustomError

from plait.checkpoint import open_checkpoint
from plait.errors import InputError, raise_all
from plait.recipe._document import Notes, parse_dtype, parse_settings, quote, validate
from plait.recipe._dump import nested_text
from plait.recipe._parts import check_order, parse_method
from plait.recipe._raw_tokenizer import RawTokenizer
from plait.recipe._schema import (
    Conventions,
    ModelRef,
    Module,
    Parameters,
    Part,
    Recipe,
    Setting,
    Slice,
    Source,
    Tokenizer,
)
from plait.recipe._yaml import YamlDocument

_WHERE = "the merge"
_UNNAMED = re.compile(r"models\[\d+\]")


def build_recipe(
    models: Sequence[object] | Mapping[str, object],
    *,
    method: str | Sequence[Part | Mapping[str, Any]] | Mapping[str, Any] | Callable[..., object],
    base: object | None = None,
    parameters: Mapping[str, object] | None = None,
    per_model: Collection[str] = (),
    dtype: object | None = None,
    out_dtype: object | None = None,
    tokenizer: Tokenizer | Mapping[str, Any] | str | None = None,
    chat_template: str | None = None,
    exclude: str | Sequence[str] = (),
    keep: str | Sequence[str] = (),
    seed: int = 0,
    conventions: Conventions = "paper",
) -> Recipe:
    """The recipe that a call describes.

    Args:
        models: paths, recipes, modules, state dicts or checkpoints; as a mapping, with names of yours.
        method: a method's name, the parts of a pipeline, or a function.
        base: the base model; it may be one of `models`.
        parameters: parameter → value, gradient, or `{filter, value}` entries. For those in `per_model`, a
            list has one value for each model, and a gradient over layers is written `{"value": [...]}`.
        per_model: the parameters that have a value for each model.
        dtype: the output's type, as text or as torch's.
        out_dtype: wins over `dtype`.
        tokenizer: `base`, `union`, a path, or the mapping that a recipe has.
        chat_template: `auto`, a template's name, or Jinja text.
        exclude: globs on tensor names that the output leaves out.
        keep: globs on tensor names that are copied from the base or the first model that has them.
        seed: seed of every random draw.
        conventions: `paper` or `mergekit`.

    Raises:
        InputError: something in it is no recipe; all such things are named.
    """
    problems: list[InputError] = []
    refs = _models(models, base, problems)
    count = len(refs) if base is None else len(refs) - 1
    shared, each = _parameters(parameters or {}, count, set(per_model), problems)
    sources = tuple(Source(ref, own) for ref, own in zip(refs[:count], each, strict=True))
    if conventions not in ("paper", "mergekit"):
        problems.append(_problem(f"`conventions` is {quote(conventions)}, and it must be paper or mergekit"))
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) < 2**63:
        problems.append(_problem(f"`seed` is {quote(seed)}, and it must be a whole number from 0 on"))
    parsed_method = _caught("method", method, _method, problems)
    types = [_caught(k, v, parse_dtype, problems) for k, v in (("dtype", dtype), ("out_dtype", out_dtype))]
    vocabulary = _tokenizer(tokenizer, problems)
    exclude, keep = _globs("exclude", exclude, problems), _globs("keep", keep, problems)
    if not isinstance(chat_template, str | None):
        problems.append(_problem(f"`chat_template` is {quote(chat_template)}, and it must be text"))
    raise_all(problems)
    return Recipe(
        grammar="python",
        conventions=conventions,
        method=parsed_method,
        modules=(Module(None, (Slice(sources),)),),
        base=None if base is None else refs[-1],
        parameters=shared,
        dtype=types[0],
        out_dtype=types[1],
        tokenizer=vocabulary,
        chat_template=chat_template,
        exclude=exclude,
        keep=keep,
        seed=int(seed),
        identities=_identities(refs),
    )


def _models(
    models: Sequence[object] | Mapping[str, object], base: object | None, problems: list[InputError]
) -> list[ModelRef]:
    """One reference per model, then the base's; the same object gives the same reference."""
    if isinstance(models, str | Path) or not isinstance(models, Sequence | Mapping):
        problems.append(_problem(f"`models` is {quote(models)}, and it must be a list of models"))
        return [] if base is None else [ModelRef("")]
    named = isinstance(models, Mapping)
    items = list(models.items()) if named else [(f"models[{i}]", m) for i, m in enumerate(models)]
    if not items:
        problems.append(_problem("there are no models to merge"))
    refs = [_ref(model, str(name), named, problems) for name, model in items]
    for index, ref in enumerate(refs):
        if refs.index(ref) != index:
            hint = "give it once, with the sum of the weights"
            problems.append(_problem(f"the model {quote(ref.text)} is there twice", hint))
    if base is not None:
        same = [ref for ref, (_, model) in zip(refs, items, strict=True) if model is base]
        refs.append(same[0] if same else _ref(base, "base", False, problems))
    return refs


def _ref(model: object, name: str, named: bool, problems: list[InputError]) -> ModelRef:
    if isinstance(model, ModelRef):
        return model
    if isinstance(model, str | Path):
        if not str(model).strip():
            problems.append(_problem(f"`{name}` is empty, and it must name a model"))
        return ModelRef(str(model))
    if isinstance(model, Recipe):
        return ModelRef(nested_text(model), nested=model)
    if model is None or isinstance(model, bool | int | float | bytes):
        problems.append(_problem(f"`{name}` is {quote(model)}, and it must be a model or the path of one"))
    reference = getattr(model, "reference", None)
    text = reference if isinstance(reference, str) and not named else name
    return ModelRef(text, live=model)


#: How many tensors of a model, and how many values of each, tell it from others.
_LOOKED_AT = 64


def _identities(refs: Sequence[ModelRef]) -> dict[str, str]:
    """Models that are known by their place in a list → by some of their values, wherever they are listed."""
    unnamed = [ref for ref in refs if ref.live is not None and _UNNAMED.fullmatch(ref.text)]
    found = {}
    for ref in unnamed if len(unnamed) > 1 else ():
        with contextlib.suppress(InputError, OSError):  # one that can't be read is told where it is opened
            checkpoint = open_checkpoint(cast("Any", ref.live))
            names = sorted(checkpoint)
            hasher = blake3()
            for name in names[:: max(len(names) // _LOOKED_AT, 1)]:
                tensor = checkpoint[name]
                values = tensor.read_flat(0, min(math.prod(tensor.shape), _LOOKED_AT))
                hasher.update(name.encode() + values.contiguous().view(torch.uint8).numpy().tobytes())
            found[ref.text] = hasher.hexdigest()
    # Equal ones are one model as far as was looked: their places tell them apart.
    return found if len(set(found.values())) == len(found) else {}


def _parameters(
    given: Mapping[str, object], count: int, per_model: set[str], problems: list[InputError]
) -> tuple[Parameters, list[dict[str, tuple[Setting, ...]]]]:
    """Parameters for all models, and those of each model."""
    shared: dict[str, tuple[Setting, ...]] = {}
    each: list[dict[str, tuple[Setting, ...]]] = [{} for _ in range(count)]
    for key, value in given.items():
        plain = _plain(value)
        if key in per_model and isinstance(plain, list) and len(plain) > 1 and not _filtered(plain):
            if len(plain) != count:
                what = f"`{key}` has {len(plain)} values for {count} model{'s' if count != 1 else ''}"
                hint = f"give one for each model; a gradient over layers is `{key}={{'value': {plain}}}`"
                problems.append(_problem(what, hint))
                continue
            for index, item in enumerate(plain):
                settings = _caught(f"{key}[{index}]", item, _settings, problems)
                each[index][key] = settings or ()
        else:
            shared[key] = _caught(key, plain, _settings, problems) or ()
    return shared, each


def _filtered(values: list[Any]) -> bool:
    """Whether a list is one parameter's `{filter, value}` entries."""
    return bool(values) and all(isinstance(value, dict) for value in values)


def _plain(value: object) -> Any:
    """Numbers of any library as Python's, tuples as lists; anything else as it is."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        return number if math.isfinite(number) else value
    return value


def _settings(value: Any) -> tuple[Setting, ...]:
    notes = Notes(strict=True)
    settings = parse_settings(value, notes)
    if notes.unknown:
        raise PydanticCustomError("plait", "{what}", {"what": f"its key `{notes.unknown[0][1]}` is unknown"})
    return settings


def _method(value: Any) -> str | tuple[Part, ...] | Callable[..., object]:
    if callable(value):
        return value
    if isinstance(value, Sequence) and value and all(isinstance(part, Part) for part in value):
        check_order([part.kind for part in value])
        return tuple(value)
    return parse_method(_plain(value), Notes(strict=True))


def _tokenizer(given: Any, problems: list[InputError]) -> Tokenizer | None:
    if given is None or isinstance(given, Tokenizer):
        return given
    data = {"source": given} if isinstance(given, str) else given
    if not isinstance(data, Mapping):
        problems.append(_problem(f"`tokenizer` is {quote(given)}, and it must be text or a mapping"))
        return None
    raw, found, _ = validate(RawTokenizer, YamlDocument(_plain(data), "tokenizer"), strict=True)
    problems.extend(found)
    return None if raw is None else raw.build()


def _globs(name: str, given: object, problems: list[InputError]) -> tuple[str, ...]:
    globs = (given,) if isinstance(given, str) else given
    if not isinstance(globs, Sequence) or not all(isinstance(glob, str) for glob in globs):
        problems.append(_problem(f"`{name}` is {quote(given)}, and it must be a list of globs"))
        return ()
    return tuple(globs)


def _caught(name: str, value: Any, parse: Callable[[Any], Any], problems: list[InputError]) -> Any:
    try:
        return parse(value)
    except PydanticCustomError as error:
        hint = (error.context or {}).get("hint") or None
        problems.append(_problem(f"`{name}` is {quote(value)}, and {error.message()}", hint))
        return None


def _problem(what: str, hint: str | None = None) -> InputError:
    return InputError(what, where=_WHERE, hint=hint)

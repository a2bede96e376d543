"""mergekit's YAML, taken as it is.

What mergekit would refuse is an error; what it reads and never uses, or does not read at all, becomes a
warning of the recipe. Three keys that mergekit ignores are honoured here: `exclude`, `keep` and `seed`.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from plait.errors import InputError, nearest
from plait.recipe._document import Dtype, Unknown, places, validate
from plait.recipe._raw_tokenizer import RawTokenizer, Vocabulary
from plait.recipe._schema import Recipe, Tokenizer
from plait.recipe._shape import BodyBuilder, RawBody, RawParameters, RawSlice, Ref
from plait.recipe._yaml import KeyPath, YamlDocument


class MergekitSlice(RawSlice):
    """One entry of `slices`; mergekit reads `residual_weight` and never uses it."""

    residual_weight: float | None = None


class MergekitDocument(RawBody[MergekitSlice]):
    """The keys at the top of a document in mergekit's grammar."""

    merge_method: str = Field(min_length=1)
    base_model: Ref | None = None
    parameters: RawParameters | None = None
    dtype: Dtype = None
    out_dtype: Dtype = None
    tokenizer_source: Vocabulary = None
    tokenizer: RawTokenizer | None = None
    chat_template: str | None = None
    name: str | None = None
    exclude: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    seed: int = 0


#: Keys honoured here although mergekit ignores them.
_OURS = ("exclude", "keep", "seed")


def read_mergekit(document: YamlDocument) -> tuple[Recipe | None, list[InputError]]:
    """One document in mergekit's grammar: what could be read of it, and what is wrong."""
    raw, problems, unknown = validate(MergekitDocument, document, strict=False)
    if raw is None:
        return None, problems
    if raw.tokenizer is not None and raw.tokenizer_source is not None:
        where = document.locate(("tokenizer_source",))
        problems.append(InputError("`tokenizer` and `tokenizer_source` exclude each other", where=where))
    builder = BodyBuilder(document, raw.base_model, add_base=True)
    modules = builder.build(raw)
    problems += builder.problems
    recipe = Recipe(
        grammar="mergekit",
        conventions="mergekit",
        method=raw.merge_method,
        modules=modules,
        base=raw.base_model,
        parameters=raw.parameters or {},
        dtype=raw.dtype,
        out_dtype=raw.out_dtype,
        tokenizer=_tokenizer(raw),
        chat_template=raw.chat_template or None,
        exclude=raw.exclude,
        keep=raw.keep,
        seed=raw.seed,
        name=raw.name,
        origin=document.where,
        places=places(document),
        warnings=tuple(_warnings(raw, document, unknown)),
    )
    return recipe, problems


def _tokenizer(raw: MergekitDocument) -> Tokenizer | None:
    if raw.tokenizer is not None:
        return raw.tokenizer.build()
    return None if raw.tokenizer_source is None else Tokenizer(raw.tokenizer_source)


def _warnings(raw: MergekitDocument, document: YamlDocument, unknown: list[Unknown]) -> list[str]:
    found = [_ignored(document, item) for item in unknown]
    for path, part in _all_slices(raw):
        if part.residual_weight is not None:
            where = document.locate((*path, "residual_weight"))
            found.append(f"{where}: `{document.show(path)}.residual_weight` has no effect, as in mergekit")
    ours = [key for key in _OURS if key in document.data]
    return found + [f"{document.locate((key,))}: mergekit ignores `{key}`; plait honours it" for key in ours]


def _ignored(document: YamlDocument, item: Unknown) -> str:
    if item.path[-1] == "override_architecture":
        why = "has no effect, as models are aligned by the names and shapes of their tensors"
        return f"{document.locate(item.path)}: `{document.show(item.path)}` {why}"
    hint = nearest(str(item.path[-1]), item.valid)
    if "parameters" in item.valid and "did you mean" not in hint:
        hint = "if it is a parameter, it belongs under `parameters`"
    return f"{document.locate(item.path)}: `{document.show(item.path)}` is ignored, as in mergekit ({hint})"


def _all_slices(raw: MergekitDocument) -> Iterator[tuple[KeyPath, MergekitSlice]]:
    for index, part in enumerate(raw.slices or ()):
        yield ("slices", index), part
    for name, module in (raw.modules or {}).items():
        for index, part in enumerate(module.slices or ()):
            yield ("modules", name, "slices", index), part

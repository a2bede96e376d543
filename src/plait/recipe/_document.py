"""From one YAML document to a typed one: every problem found is reported, each with its line.

The two grammars describe their documents as pydantic models derived from `Keys`; this file runs them
and turns what pydantic finds into plait's own messages. It also reads the values that both grammars
write alike: settings of parameters.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationError, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from plait.errors import InputError, nearest
from plait.recipe._schema import ModelRef, Scalar, Setting
from plait.recipe._yaml import KeyPath, YamlDocument

_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_LARGEST_INT = 2**63


@dataclass
class Notes:
    """What validation of one document notes besides its errors.

    Attributes:
        strict: plait's grammar, where an unknown key is an error.
        nested: reads a recipe in a model's place; None where the grammar has no such thing.
        unknown: (identity of the mapping, key in it, keys valid there).
    """

    strict: bool
    nested: Callable[[dict[str, Any]], ModelRef] | None = None
    unknown: list[tuple[int, str, tuple[str, ...]]] = field(default_factory=list)

    def note(self, mapping: dict[str, Any], valid: Iterable[str]) -> None:
        """Remember the keys of `mapping` that are not `valid`."""
        names = tuple(valid)
        self.unknown += [(id(mapping), key, names) for key in mapping if key not in names]


class Keys(BaseModel):
    """A mapping with known keys; the unknown ones are noted, not lost."""

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True)

    @model_validator(mode="before")
    @classmethod
    def _note_unknown(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, dict):
            valid = [known.alias or name for name, known in cls.model_fields.items()]
            notes_of(info).note(value, valid)
        return value


def notes_of(info: ValidationInfo) -> Notes:
    """The notes of the validation that runs."""
    assert isinstance(info.context, Notes)
    return info.context


DocumentModel = TypeVar("DocumentModel", bound=Keys)


@dataclass(frozen=True)
class Unknown:
    """A key that the grammar does not know."""

    path: KeyPath
    valid: tuple[str, ...]


def validate(
    model: type[DocumentModel],
    document: YamlDocument,
    *,
    strict: bool,
    nested: Callable[[dict[str, Any]], ModelRef] | None = None,
) -> tuple[DocumentModel | None, list[InputError], list[Unknown]]:
    """Check a document against its model.

    Returns:
        The typed document, the problems, and the unknown keys. With `strict` unknown keys are among the
        problems. Where there are problems the document is what is left without the faulty values, so that
        more can be looked for; None where that is no document.
    """
    notes = Notes(strict, nested)
    typed, problems = None, []
    try:
        typed = model.model_validate(document.data, context=notes)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        problems = [_problem(document, found) for found in faults]
        with contextlib.suppress(ValidationError):
            typed = model.model_validate(_without(document.data, faults), context=Notes(strict, nested))
    paths = mapping_paths(document.data)
    unknown = [Unknown((*paths[identity], key), valid) for identity, key, valid in notes.unknown]
    if strict:
        problems = [unknown_key(document, item) for item in unknown] + problems
    return typed, problems, unknown


def unknown_key(document: YamlDocument, item: Unknown) -> InputError:
    """The error for a key that plait's grammar does not know."""
    key = str(item.path[-1])
    parent = document.show(item.path[:-1])
    inside = f" in `{parent}`" if parent else ""
    return InputError(
        f"unknown key `{key}`{inside}", where=document.locate(item.path), hint=nearest(key, item.valid)
    )


#: Pydantic's names of what is wrong with a plain value → what it must, with what pydantic tells besides.
_WANTED = {
    ("string_type",): "be text",
    ("string_too_short",): "be text that is not empty",
    ("bool_type", "bool_parsing"): "be true or false",
    ("int_type", "int_parsing", "int_from_float"): "be a whole number",
    ("float_type", "float_parsing"): "be a number",
    ("finite_number",): "be a finite number",
    ("greater_than",): "be above {gt:g}",
    ("greater_than_equal",): "be at least {ge:g}",
    ("less_than",): "be below {lt:g}",
    ("less_than_equal",): "be at most {le:g}",
    ("too_short",): "hold at least {min_length}",
}


def quote(value: object) -> str:
    """The user's value, cut to a length that a message can bear."""
    text = repr(value)
    return f"`{text if len(text) <= 80 else text[:77] + '...'}`"


def mapping_paths(value: Any, path: KeyPath = ()) -> dict[int, KeyPath]:
    """Identity of every mapping in a document → where it stands."""
    found: dict[int, KeyPath] = {}
    if isinstance(value, dict):
        found[id(value)] = path
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in children:
        if isinstance(child, dict | list):
            found.update(mapping_paths(child, (*path, key)))
    return found


def places(document: YamlDocument) -> dict[str, str]:
    """Every text in a document → `file:line` of the first place where it stands."""
    found: dict[str, str] = {}

    def visit(value: Any, path: KeyPath) -> None:
        if isinstance(value, str):
            found.setdefault(value, document.locate(path))
        elif isinstance(value, dict | list):
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                visit(inner, (*path, key))

    if document.lines:
        visit(document.data, ())
    return found


def _without(data: dict[str, Any], faults: Iterable[Any]) -> dict[str, Any]:
    """The document without its faulty values; an entry that lacks a key goes whole."""
    paths = {found["loc"][:-1] if found["type"] == "missing" else found["loc"] for found in faults}

    def kept(value: Any, path: KeyPath) -> Any:
        if not any(fault[: len(path)] == path for fault in paths):
            return value  # the same object: readers of nested recipes know mappings by their identity
        if isinstance(value, dict):
            return {k: kept(v, (*path, k)) for k, v in value.items() if (*path, k) not in paths}
        if isinstance(value, list):
            return [kept(v, (*path, i)) for i, v in enumerate(value) if (*path, i) not in paths]
        return value

    return kept(data, ())


def _problem(document: YamlDocument, found: Any) -> InputError:
    path: KeyPath = found["loc"]
    shown = f"`{document.show(path)}`" if document.show(path) else f"the {document.kind}"
    where = document.locate(path)
    if found["type"] == "missing":
        return InputError(f"{shown} is missing", where=where)
    if found["type"] in ("model_type", "dict_type"):
        return InputError(f"{shown} is {quote(found['input'])}, and it must be a mapping", where=where)
    if found["type"] in ("tuple_type", "list_type") or "Sequence" in found["msg"]:
        return InputError(f"{shown} is {quote(found['input'])}, and it must be a list", where=where)
    if found["type"] == "plait":
        hint = found.get("ctx", {}).get("hint") or None
        return InputError(f"{shown} is {quote(found['input'])}, and {found['msg']}", where=where, hint=hint)
    if found["type"] == "literal_error":
        words = re.findall(r"'([^']*)'", found["ctx"]["expected"])
        what = f"{shown} is {quote(found['input'])}, and it must be {' or '.join(words)}"
        return InputError(what, where=where, hint=nearest(str(found["input"]), words))
    wanted = next((text for kinds, text in _WANTED.items() if found["type"] in kinds), None)
    if wanted is not None:
        what = f"{shown} is {quote(found['input'])}, and it must {wanted.format(**found.get('ctx', {}))}"
        return InputError(what, where=where)
    message = found["msg"][:1].lower() + found["msg"][1:]
    return InputError(f"{shown} is {quote(found['input'])}: {message}", where=where)


def refuse(what: str, hint: str = "") -> PydanticCustomError:
    """An error for a validator to raise; reads on from "`path` is `value`, and "."""
    return PydanticCustomError("plait", "{what}", {"what": what, "hint": hint})


def parse_settings(value: Any, notes: Notes) -> tuple[Setting, ...]:
    """The settings of one parameter: a scalar, a gradient, one `{value, filter}` or a list of them."""
    if isinstance(value, dict):
        return (_conditional(value, notes),)
    if not isinstance(value, list):
        return (Setting(_scalar(value)),)
    if not value and not notes.strict:  # mergekit goes on to the next level, as if it were not there
        return ()
    if value and all(isinstance(item, dict) for item in value):
        return tuple(_conditional(item, notes) for item in value)
    return (Setting(_gradient(value)),)


def _conditional(value: dict[str, Any], notes: Notes) -> Setting:
    notes.note(value, ("value", "filter"))
    if "value" not in value:
        raise refuse("it needs a `value` (and may have a `filter`)")
    pattern = value.get("filter")
    if not isinstance(pattern, str | None):
        raise refuse(f"its filter {quote(pattern)} must be text", "put it in quotes")
    inner = value["value"]
    parsed = _gradient(inner) if isinstance(inner, list) else _scalar(inner)
    return Setting(parsed, None if pattern == "*" else pattern)


def _gradient(values: list[Any]) -> Scalar | tuple[Scalar, ...]:
    if not values:
        raise refuse("a gradient needs at least one value")
    if any(isinstance(value, dict) for value in values):
        raise refuse(
            "it mixes plain values with `filter` entries", "write the plain one as {value: ...}, last"
        )
    parsed = tuple(_scalar(value) for value in values)
    return parsed[0] if len(parsed) == 1 else parsed


def _scalar(value: Any) -> Scalar:
    """A finite number, a boolean or text; `1e-5`, text to YAML 1.1, is the number that it looks like."""
    if isinstance(value, str) and (number := _NUMBER.fullmatch(value)):
        value = float(value) if number[0].lstrip("+-").strip("0123456789") else int(value)
    if not isinstance(value, bool | int | float | str):
        raise refuse("it must be a number, true or false, text, a list of those, or {value, filter}")
    if isinstance(value, float) and not math.isfinite(value):
        raise refuse("it must be a finite number")
    if isinstance(value, int) and abs(value) >= _LARGEST_INT:
        raise refuse("it is too large")
    return value


#: The field type of one parameter's settings, for the models of both grammars.
Settings = Annotated[
    tuple[Setting, ...], PlainValidator(lambda value, info: parse_settings(value, notes_of(info)))
]


#: What `dtype` and `out_dtype` may be.
DTYPES = (
    "bfloat16",
    "float16",
    "float32",
    "float64",
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
)


def parse_dtype(value: Any) -> str | None:
    """A type's canonical name; `torch.` in front is dropped."""
    if value is None or value == "":
        return None
    name = str(value).removeprefix("torch.")
    if name not in DTYPES:
        raise refuse("it must be the name of a floating-point type", nearest(name, DTYPES))
    return name


Dtype = Annotated[str | None, PlainValidator(parse_dtype)]

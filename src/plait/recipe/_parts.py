"""`merge:` in plait's grammar: a method's name, or the parts of a pipeline.

merge: ties
merge: {sparsify: {name: trim, density: 0.2}, consensus: elected_sign, scale: 0.5}
merge: [{sparsify: trim, density: 0.2}, {consensus: elected_sign}, {scale: 0.5}]
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, get_args

from pydantic import PlainValidator

from plait.errors import nearest
from plait.recipe._document import Notes, notes_of, parse_settings, quote, refuse
from plait.recipe._schema import PART_KINDS, Part, PartKind, Setting

#: What `scale: 0.5` is short for: the name of the part and of its option.
CONSTANT_SCALE = ("constant", "factor")


def parse_method(value: Any, notes: Notes) -> str | tuple[Part, ...]:
    """A method's name, or parts in the order in which they run."""
    if isinstance(value, str) and value.strip():
        return value
    if not value or not isinstance(value, dict | list):
        raise refuse("it must be a method's name, a mapping or a list of parts")
    if isinstance(value, dict):
        notes.note(value, PART_KINDS)
        parts = [_part(kind, value[kind], notes) for kind in PART_KINDS if kind in value]
        if not parts:
            raise refuse("it has no part", nearest(next(iter(value)), PART_KINDS))
        return tuple(parts)
    parts = tuple(_listed(item, notes) for item in value)
    check_order([part.kind for part in parts])
    return parts


def _part(kind: PartKind, value: Any, notes: Notes) -> Part:
    """A part by its name, by `{name: ..., option: ...}`, or a number for `scale`."""
    if isinstance(value, str) and value.strip():
        return Part(kind, value)
    if kind == "scale" and isinstance(value, int | float) and not isinstance(value, bool):
        name, option = CONSTANT_SCALE
        return Part(kind, name, {option: parse_settings(value, notes)})
    if not isinstance(value, dict):
        raise refuse(f"its `{kind}` {quote(value)} must be a name or {{name: ..., option: ...}}")
    if not isinstance(value.get("name"), str):
        raise refuse(f"its `{kind}` needs a `name`", nearest(next(iter(value), ""), ("name",)))
    return Part(kind, value["name"], _options(value, "name", notes))


def _listed(item: Any, notes: Notes) -> Part:
    """One entry of a list: `{KIND: NAME, option: ...}`, or `{KIND: {name: ..., option: ...}}`."""
    if not isinstance(item, dict):
        raise refuse(f"its part {quote(item)} must be a mapping such as {{sparsify: NAME}}")
    kinds: list[PartKind] = [kind for kind in get_args(PartKind) if kind in item]
    if len(kinds) != 1:
        hint = nearest(str(next(iter(item), "")), PART_KINDS)
        raise refuse(f"its part {quote(item)} must have exactly one of {', '.join(PART_KINDS)}", hint)
    part = _part(kinds[0], item[kinds[0]], notes)
    return Part(part.kind, part.name, {**part.options, **_options(item, kinds[0], notes)})


def _options(value: dict[str, Any], name_key: str, notes: Notes) -> dict[str, tuple[Setting, ...]]:
    return {key: parse_settings(option, notes) for key, option in value.items() if key != name_key}


def check_order(kinds: list[PartKind]) -> None:
    """Refuse parts that come twice or in the wrong order."""
    for kind in PART_KINDS:
        if kinds.count(kind) > 1:
            hint = "merge in stages, each a recipe of its own" if kind != "scale" else "give their product"
            raise refuse(f"it has more than one `{kind}`", hint)
    places = [PART_KINDS.index(kind) for kind in kinds]
    for earlier, later in pairwise(places):
        if later < earlier:
            raise refuse(f"its `{PART_KINDS[later]}` must come before its `{PART_KINDS[earlier]}`")


Method = Annotated[
    str | tuple[Part, ...], PlainValidator(lambda value, info: parse_method(value, notes_of(info)))
]

"""Damage to files, drawn by hypothesis: bytes, JSON documents, safetensors headers, pickles, YAML."""

from __future__ import annotations

import copy
import io
import json
import math
import zipfile
from collections.abc import Iterator
from typing import Any

import yaml
from hypothesis import strategies as st

_NUMBERS: list[Any] = [0, -1, 1, 2, 7, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 2**70, -(2**63), 10**400]
_REALS: list[Any] = [0.5, -0.0, 1e308, 1e-320, math.nan, math.inf, -math.inf, None, True, False]
_PATHS: list[Any] = ["", "\0", ".", "..", "/", "../sound/model.safetensors", "model.safetensors", "sound"]
_WORDS: list[Any] = [" ", "²", "1", "-1", "\ud800", "é\u202e", "a" * 300, "x\ny", "{{", "[", "*", "<unk>"]
_NAMES: list[Any] = ["float32", "bfloat16", "int4", "base", "union", "weight", "value", "filter"]
_LISTS: list[Any] = [[], [[]], [None], [0, 2**63], [{"content": 1}], [1, "a"], [["a", 1]]]
_MAPPINGS: list[Any] = [{}, {"": None}, {"a": {"b": 1}}, {"value": 0.5, "filter": "*"}]
#: What few fields of any file expect.
ODD = [*_NUMBERS, *_REALS, *_PATHS, *_WORDS, *_NAMES, *_LISTS, *_MAPPINGS]
#: Text that is put where a value was, as no JSON writer writes it.
RAW = ["[" * 100_000, '{"a":' * 50_000 + "1", "9" * 5000, "1e999", "-Infinity", '"\\ud800"', '"\\u0000"', "{"]
_PLACE = "@raw@"


def _spots(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key or index) of a document."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield value, key
        yield from _spots(inner)


@st.composite
def documents(draw: st.DrawFn, value: Any, most: int = 3) -> Any:
    """A document with some of its values changed, removed, renamed or exchanged."""
    found = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, most))):
        spots = list(_spots(found))
        if not spots:
            break
        container, key = spots[draw(st.integers(0, len(spots) - 1))]
        what = draw(st.sampled_from(("odd", "odd", "odd", "nudge", "drop", "rename", "exchange", "wrap")))
        inner = container[key]
        if what == "drop":
            del container[key]
        elif what == "rename" and isinstance(container, dict):
            container[draw(st.sampled_from([o for o in ODD if isinstance(o, str)]))] = container.pop(key)
        elif what == "exchange":
            other, place = spots[draw(st.integers(0, len(spots) - 1))]
            container[key] = copy.deepcopy(other[place])
        elif what == "wrap":
            container[key] = draw(st.sampled_from(([inner], [inner, inner], {"a": inner}, {"value": inner})))
        elif what == "nudge" and type(inner) in (int, float):
            container[key] = inner + draw(st.sampled_from((-1, 1, 8, 10**6)))
        else:
            container[key] = copy.deepcopy(ODD[draw(st.integers(0, len(ODD) - 1))])
    return found


@st.composite
def json_files(draw: st.DrawFn, value: Any) -> bytes:
    """A JSON document's damaged text."""
    kind = draw(st.sampled_from(("values", "values", "values", "raw", "bytes")))
    if kind == "bytes":
        return draw(damaged(json.dumps(value).encode()))
    found = draw(documents(value))
    if kind == "values":
        return json.dumps(found).encode()
    spots = list(_spots(found))
    if spots:
        container, key = spots[draw(st.integers(0, len(spots) - 1))]
        container[key] = _PLACE
    return json.dumps(found).replace(f'"{_PLACE}"', draw(st.sampled_from(RAW))).encode()


@st.composite
def damaged(draw: st.DrawFn, content: bytes, first: int = 0, last: int | None = None) -> bytes:
    """Bytes with some of them changed, removed, repeated, or cut off; only those from `first` to `last`."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        size = min(len(found), last or len(found))
        if size <= first:
            break
        at = draw(st.integers(first, size - 1))
        what = draw(st.sampled_from(("set", "set", "set", "flip", "insert", "drop", "repeat", "cut")))
        run = draw(st.integers(1, 16))
        if what == "set":
            found[at] = draw(st.integers(0, 255))
        elif what == "flip":
            found[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "insert":
            found[at:at] = draw(st.binary(min_size=1, max_size=9))
        elif what == "drop":
            del found[at : at + run]
        elif what == "repeat":
            found[at:at] = found[at : at + run]
        elif last is None:
            del found[at:]
    return bytes(found)


@st.composite
def safetensors_files(draw: st.DrawFn, content: bytes) -> bytes:
    """A safetensors file whose header says something else."""
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]
    kind = draw(st.sampled_from(("header", "header", "header", "bytes", "length", "data")))
    if kind == "bytes":
        return draw(damaged(content, last=8 + length))
    if kind == "header":
        header = draw(json_files(json.loads(header)))
    if kind == "data":
        data = draw(damaged(data)) if draw(st.booleans()) else data + draw(st.binary(max_size=40))
    size = len(header) if kind != "length" else draw(st.integers(0, 2**64 - 1) | st.integers(0, 2 * length))
    return size.to_bytes(8, "little") + header + data


@st.composite
def torch_files(draw: st.DrawFn, content: bytes) -> bytes:
    """A file of torch.save: its bytes damaged, or its records, in an archive that is whole."""
    if not zipfile.is_zipfile(io.BytesIO(content)) or draw(st.booleans()):
        return draw(damaged(content))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    name = draw(st.sampled_from([*(name for name in records if name.endswith("data.pkl")), *records]))
    records[name] = draw(damaged(records[name])) if records[name] else b"x"
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for record, data in records.items():
            archive.writestr(record, data)
    return made.getvalue()


@st.composite
def recipes(draw: st.DrawFn, text: str) -> bytes:
    """A recipe with some of its values, lines or bytes changed."""
    kind = draw(st.sampled_from(("values", "values", "values", "lines", "bytes")))
    if kind == "bytes":
        return draw(damaged(text.encode()))
    if kind == "lines":
        lines = text.splitlines(keepends=True)
        for _ in range(draw(st.integers(1, 3))):
            one, other = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
            lines[one : one + 1] = draw(st.sampled_from(([], [lines[one]] * 2, [lines[other]], ["---\n"])))
            if not lines:
                break
        return "".join(lines).encode()
    try:
        found = draw(documents(list(yaml.safe_load_all(text))))
    except yaml.YAMLError:  # one that is refused as it is
        return draw(damaged(text.encode()))
    parts = found if isinstance(found, list) else [found]
    return yaml.safe_dump_all(parts, sort_keys=False).encode("utf-8", "surrogatepass")

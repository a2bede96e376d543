"""YAML read safely: plain values only, bounded in size, and every key remembers its line.

PyYAML composes the text into nodes (so that lines are known and nothing is constructed yet); the
values are built here, where repeated keys, tags and aliases that multiply can be refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from plait.errors import InputError

#: Where a value stands in its document: keys and list positions from the top.
KeyPath = tuple[str | int, ...]

#: What a document is, if nothing else is said.
RECIPE = "recipe"
LARGEST_TEXT = 10_000_000
LARGEST_EXPANSION = 1_000_000
DEEPEST = 64

_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")}
_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_MERGE = "tag:yaml.org,2002:merge"
_VALUE = "tag:yaml.org,2002:value"


@dataclass(frozen=True)
class YamlDocument:
    """One document: its plain values, and the line of each.

    Attributes:
        data: the top mapping.
        where: the file, as the user named it.
        lines: key path → line (from 1) in the file; empty for a mapping made in Python.
        at: where the mapping stands in the whole document, for a nested recipe.
        kind: what a document is called in messages.
    """

    data: dict[str, Any]
    where: str
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    at: KeyPath = ()
    kind: str = RECIPE

    def locate(self, path: KeyPath) -> str:
        """`file:line` of the value at `path`, or of the closest one around it."""
        for length in range(len(path), -1, -1):
            line = self.lines.get(path[:length])
            if line is not None:
                return f"{self.where}:{line}"
        return self.where

    def below(self, path: KeyPath, data: dict[str, Any]) -> YamlDocument:
        """The mapping `data`, which stands at `path`, as a document with the same lines."""
        size = len(path)
        lines = {key[size:]: line for key, line in self.lines.items() if key[:size] == path}
        return YamlDocument(data, self.where, lines, (*self.at, *path), self.kind)

    def show(self, path: KeyPath) -> str:
        """`models[1].parameters.density` for the path ("models", 1, "parameters", "density")."""
        return show_path((*self.at, *path))


def show_path(path: KeyPath) -> str:
    """Keys joined by dots, list positions in brackets."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def read_yaml(path: Path, *, kind: str = RECIPE) -> list[YamlDocument]:
    """All documents of a file; at least one. `kind` is what messages call them.

    Raises:
        InputError: the file can't be read or is not plain, well-formed YAML.
    """
    try:
        if path.is_file() and path.stat().st_size > LARGEST_TEXT:
            raise InputError(f"a {kind} has at most {LARGEST_TEXT} bytes", where=str(path))
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"it is not UTF-8 text (byte {error.start})", where=str(path)) from error
    except FileNotFoundError as error:
        raise InputError("no such file", where=str(path)) from error
    except IsADirectoryError as error:
        raise InputError(f"this is a folder, and a {kind} is a YAML file", where=str(path)) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"it can't be read: {reason}", where=str(path)) from error
    return parse_yaml(text, str(path), kind=kind)


def parse_yaml(
    text: str, where: str, *, most: int = LARGEST_EXPANSION, kind: str = RECIPE
) -> list[YamlDocument]:
    """All documents of a text; `where` names it in messages, and aliases expand to `most` values at most.

    Raises:
        InputError: it is not plain, well-formed YAML whose documents are mappings.
    """
    if len(text) > LARGEST_TEXT:
        raise InputError(f"a {kind} has at most {LARGEST_TEXT} characters", where=where)
    try:
        documents = [_document(node, where, most, kind) for node in _nodes(text) if not _is_empty(node)]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}:{mark.line + 1}" if mark else where
        raise InputError(f"this is not valid YAML: {error.problem or error.context}", where=place) from error
    except yaml.YAMLError as error:
        raise InputError(f"this is not valid YAML: {error}", where=where) from error
    except RecursionError as error:
        raise InputError(f"it is nested deeper than {DEEPEST} levels", where=where) from error
    if not documents:
        raise InputError(f"it is empty, and a {kind} is a mapping of keys to values", where=where)
    return documents


def _nodes(text: str) -> Iterator[yaml.Node]:
    return yaml.compose_all(text, Loader=yaml.SafeLoader)


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null") and not node.value


def _document(node: yaml.Node, where: str, most: int, kind: str) -> YamlDocument:
    if not isinstance(node, yaml.MappingNode):
        place = f"{where}:{node.start_mark.line + 1}"
        raise InputError(f"a {kind} is a mapping of keys to values, and this is not one", where=place)
    builder = _Builder(where, most, kind)
    return YamlDocument(builder.build(node, ()), where, builder.lines, kind=kind)


class _Builder:
    """Turns nodes into plain values, counting what aliases expand to."""

    def __init__(self, where: str, most: int, kind: str) -> None:
        self.where, self._most, self._kind = where, most, kind
        self.lines: dict[KeyPath, int] = {}
        self._count = 0
        self._scalars = yaml.SafeLoader("")

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        self._count += 1
        if self._count > self._most:
            raise self._refuse(node, f"its aliases expand to more than {self._most} values")
        if len(path) > DEEPEST:
            raise self._refuse(
                node, f"it is nested deeper than {DEEPEST} levels (or an alias contains itself)"
            )
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        raise self._refuse(
            node, f"the tag `{_short(node.tag)}` is not allowed; a {self._kind} holds plain values only"
        )

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _MERGE:
                merged = {**self._merged(value_node, path), **merged}
                continue
            key = self._key(key_node)
            if key in first:
                raise self._refuse(key_node, f"the key `{key}` is here twice (first on line {first[key]})")
            first[key] = line
            self.lines[(*path, key)] = line
            result[key] = self.build(value_node, (*path, key))
        return {**merged, **result}

    def _merged(self, node: yaml.Node, path: KeyPath) -> dict[str, Any]:
        """The mapping(s) behind a `<<` key; the first of several wins."""
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        result: dict[str, Any] = {}
        for item in nodes:
            if not isinstance(item, yaml.MappingNode):
                raise self._refuse(item, "`<<` merges mappings, and this is not one")
            # one level deeper than it lands, so that a mapping that merges itself comes to an end
            result = {**self.build(item, (*path, "<<")), **result}
        return result

    def _key(self, node: yaml.Node) -> str:
        value = self._scalar(node) if isinstance(node, yaml.ScalarNode) else None
        if not isinstance(value, str):
            shown = node.value if isinstance(node, yaml.ScalarNode) else "a list or mapping"
            raise self._refuse(node, f"the key `{shown}` is not text", hint="put it in quotes")
        return value

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if node.tag in (_TIMESTAMP, _VALUE):  # a model may be called 2024-01-01
            return node.value
        if node.tag not in _PLAIN_TAGS:
            raise self._refuse(
                node, f"the tag `{_short(node.tag)}` is not allowed; a {self._kind} holds plain values only"
            )
        try:
            return self._scalars.construct_object(node)
        except ValueError as error:
            raise self._refuse(node, f"`{node.value}` is not a valid {_short(node.tag)}") from error

    def _refuse(self, node: yaml.Node, what: str, hint: str | None = None) -> InputError:
        return InputError(what, where=f"{self.where}:{node.start_mark.line + 1}", hint=hint)


def _short(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")

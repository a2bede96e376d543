from __future__ import annotations

from pathlib import Path

import pytest

from plait.errors import InputError
from plait.recipe._yaml import LARGEST_TEXT, parse_yaml, read_yaml


def one(text: str) -> dict:
    (document,) = parse_yaml(text, "r.yaml")
    return document.data


def test_plain_values_come_out_as_python_values():
    assert one("a: 1\nb: [1.5, true, null, x]\nc: {d: ''}") == {
        "a": 1,
        "b": [1.5, True, None, "x"],
        "c": {"d": ""},
    }


def test_several_documents_in_one_file_keep_their_lines():
    first, second = parse_yaml("---\na: 1\n---\nb:\n  - c: 2\n---\n", "r.yaml")
    assert first.data == {"a": 1}
    assert second.data == {"b": [{"c": 2}]}
    assert second.locate(("b", 0, "c")) == "r.yaml:5"
    assert second.locate(("b", 0, "missing")) == "r.yaml:5"
    assert second.locate(("nowhere",)) == "r.yaml:4"


def test_dates_stay_text():
    assert one("model: 2024-01-01") == {"model": "2024-01-01"}


def test_aliases_and_merge_keys_work_as_in_yaml():
    text = "x: &a {p: 1, q: 2}\ny: {<<: *a, q: 3}\nz: {<<: [{p: 5}, *a]}"
    assert one(text) == {"x": {"p": 1, "q": 2}, "y": {"p": 1, "q": 3}, "z": {"p": 5, "q": 2}}


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("a: 1\nb: 2\na: 3", "`a` is here twice (first on line 1)", 3),
        ("a:\n  - {b: 1, b: 2}", "`b` is here twice", 2),
        ("a: 1\nb: !!python/object/apply:os.system ['true']", "!!python/object/apply:os.system", 2),
        ("a: !!python/name:os.system ''", "!!python/name:os.system", 1),
        ("a: !mine 3", "`!mine` is not allowed", 1),
        ("a: !!binary aGk=", "!!binary", 1),
        ("a: !!set {x, y}", "!!set", 1),
        ("a: !!int x", "`x` is not a valid !!int", 1),
        ("a: 1\nb: [1, 2", "not valid YAML", 2),
        ("- a\n- b", "a mapping of keys to values", 1),
        ("just text", "a mapping of keys to values", 1),
        ("1: x", "the key `1` is not text", 1),
        ("on: x", "the key `on` is not text", 1),
        ("[a]: x", "the key `a list or mapping` is not text", 1),
        ("a: &a\n  b: *a", "nested deeper", 1),
        ("a: &a [*a]", "nested deeper", 1),
        ("a: &a\n  <<: *a", "nested deeper", 1),
        ("a: {<<: 3}", "`<<` merges mappings", 1),
        ("a: *missing", "not valid YAML", 1),
        ("a: \x00", "not valid YAML", None),
        ("", "it is empty", None),
        ("---\n---\n", "it is empty", None),
    ],
)
def test_what_is_not_plain_yaml_is_refused_with_its_line(text, message, line):
    with pytest.raises(InputError) as caught:
        parse_yaml(text, "r.yaml")
    assert message in caught.value.what
    assert caught.value.where == ("r.yaml" if line is None else f"r.yaml:{line}")


def test_aliases_that_explode_are_refused_at_once():
    with pytest.raises(InputError, match="expand to more than"):
        parse_yaml(bomb(9), "r.yaml")


def test_deep_nesting_is_refused_without_a_recursion_error():
    with pytest.raises(InputError, match="nested deeper"):
        parse_yaml("a: " + "[" * 5000 + "]" * 5000, "r.yaml")
    with pytest.raises(InputError, match="nested deeper"):
        parse_yaml("a: " + "[" * 100 + "]" * 100, "r.yaml")


def test_files_that_cannot_be_recipes_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no such file"):
        read_yaml(tmp_path / "missing.yaml")
    with pytest.raises(InputError, match="folder"):
        read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(InputError, match="not UTF-8"):
        read_yaml(tmp_path / "latin.yaml")
    with (tmp_path / "large.yaml").open("wb") as file:
        file.truncate(LARGEST_TEXT + 1)
    with pytest.raises(InputError, match="at most"):
        read_yaml(tmp_path / "large.yaml")


def test_a_byte_order_mark_is_skipped(tmp_path: Path):
    (tmp_path / "r.yaml").write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_yaml(tmp_path / "r.yaml")[0].data == {"a": 1}

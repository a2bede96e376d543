"""What is told of values that code reaches, of whatever kind: all they hold, the same in every process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import code_values
import pytest
from code_values import KINDS, OF_PROCESS, told

import plait


@pytest.mark.parametrize("kind", KINDS)
def test_another_value_is_told_otherwise_and_the_same_one_alike(kind: str) -> None:
    make = KINDS[kind]
    assert told(make(2.0)) == told(make(2.0)) != told(make(1.0))


@pytest.mark.parametrize("kind", OF_PROCESS)
def test_of_what_belongs_to_a_process_only_the_kind_is_told(kind: str) -> None:
    assert told(OF_PROCESS[kind]()) == told(OF_PROCESS[kind]())


def test_the_same_is_told_in_every_process() -> None:
    def run(seed: str) -> dict[str, str]:
        paths = [str(Path(plait.__file__).parents[1]), str(Path(code_values.__file__).parent)]
        own = {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(paths)}
        found = subprocess.run(
            [sys.executable, code_values.__file__], env=os.environ | own, capture_output=True, check=True
        )
        return json.loads(found.stdout)

    first, *others = (run(seed) for seed in ("1", "2", "77"))
    assert first.keys() == {*KINDS, *OF_PROCESS}
    for other in others:
        assert [kind for kind in first if first[kind] != other[kind]] == []
    assert " at 0x" not in json.dumps(first)


def test_a_configuration_of_transformers_is_told_but_not_where_it_was_read() -> None:
    transformers = pytest.importorskip("transformers")

    def of(**settings: object) -> str:
        config = transformers.BertConfig(hidden_size=8, **settings)
        config._name_or_path = os.urandom(4).hex()
        return told(config)

    assert of(layer_norm_eps=0.1) == of(layer_norm_eps=0.1) != of(layer_norm_eps=0.2)

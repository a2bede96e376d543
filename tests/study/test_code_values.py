"""What is told of values that code reaches, of whatever kind: all they hold, the same in every process."""

from __future__ import annotations

import enum
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import code_values
import pytest
import torch
from code_values import KINDS, OF_PROCESS, told
from torch import nn

import plait
from plait.study._facts import of_network


@pytest.mark.parametrize("kind", KINDS)
def test_another_value_is_told_otherwise_and_the_same_one_alike(kind: str) -> None:
    make = KINDS[kind]
    assert told(make(2.0)) == told(make(2.0)) != told(make(1.0))


@pytest.mark.parametrize("kind", OF_PROCESS)
def test_of_what_belongs_to_a_process_only_the_kind_is_told(kind: str) -> None:
    assert told(OF_PROCESS[kind]()) == told(OF_PROCESS[kind]())


def test_the_same_is_told_in_every_process_whatever_its_folder_and_pytorch_s_settings(tmp_path: Path) -> None:
    def run(seed: str) -> dict[str, str]:
        paths = [str(Path(plait.__file__).parents[1]), str(Path(code_values.__file__).parent)]
        own = {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(paths)}
        own |= {"TORCHINDUCTOR_MAX_AUTOTUNE": str(int(seed) % 2)}
        (tmp_path / seed).mkdir()
        found = subprocess.run(
            [sys.executable, code_values.__file__],
            env=os.environ | own,
            cwd=tmp_path / seed,
            capture_output=True,
            check=True,
        )
        return json.loads(found.stdout)

    first, other = run("1"), run("2")
    assert first.keys() == {*KINDS, *OF_PROCESS}
    assert [kind for kind in first if first[kind] != other[kind]] == []
    assert " at 0x" not in json.dumps(first)


def test_a_configuration_of_transformers_is_told_but_not_where_it_was_read() -> None:
    transformers = pytest.importorskip("transformers")

    def of(**settings: object) -> str:
        config = transformers.BertConfig(hidden_size=8, **settings)
        config._name_or_path = os.urandom(4).hex()
        return told(config)

    assert of(layer_norm_eps=0.1) == of(layer_norm_eps=0.1) != of(layer_norm_eps=0.2)


def test_what_was_called_is_told_as_before() -> None:
    """A dispatching function keeps what it found."""

    def found(x: object) -> object:
        return x

    dispatching = functools.singledispatch(found)
    dispatching.register(Mapping, lambda _: 2)
    before = told(dispatching)
    dispatching([])
    assert told(dispatching) == before


def test_flags_that_were_put_together_are_told_as_before() -> None:
    """Python keeps what they make in a table of the class."""

    class Corner(enum.Flag):
        TOP = 1
        LEFT = 2

    before = told(Corner)
    assert Corner.TOP | Corner.LEFT
    assert told(Corner) == before


def test_what_was_scripted_before_is_told_as_if_it_were_the_first() -> None:
    def of() -> str:
        class Same(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x * 2

        return told(
            torch.jit.script(nn.Sequential(Same(), nn.Linear(1, 1).requires_grad_(False).apply(ones)))
        )

    def ones(module: nn.Module) -> None:
        for parameter in module.parameters():
            parameter.data.fill_(1)

    assert len({of() for _ in range(12)}) == 1


def test_a_network_depends_on_what_its_scripted_or_compiled_parts_compute() -> None:
    def of(scale: float, make: Callable[[nn.Module], Any]) -> str:
        network = nn.Sequential(nn.Tanh(), make(code_values.Scaled(scale)))
        return json.dumps(of_network(network), sort_keys=True)

    for make in (torch.jit.script, torch.compile):
        assert of(2.0, make) == of(2.0, make) != of(1.0, make)

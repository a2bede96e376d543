"""What a rule keeps is noted by the pass that adds it up, and taken from there by the one that merges."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import plait

SHAPE = (300, 1001)


def states(count: int) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    base = torch.randn(SHAPE, generator=generator)
    tuned = [base + 0.1 * torch.randn(SHAPE, generator=generator) for _ in range(count)]
    return [{"w": tensor.to(torch.bfloat16)} for tensor in (base, *tuned)]


def merged(states: list[dict[str, Tensor]], method: str, memory: int) -> Tensor:
    base, *tuned = states
    options = plait.RunOptions(memory=memory, threads=1)
    found = plait.merge(tuned, base=base, method=method, density=0.6, conventions="mergekit", options=options)
    return found["w"]


def noting(folder: Path) -> int:
    """How many kernels write conditions down."""
    return sum("kb[e] =" in path.read_text() for path in folder.rglob("rule_*.py"))


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della"])
def test_noted_conditions_give_the_bits_of_computed_ones(method, tmp_path, monkeypatch):
    monkeypatch.setattr("plait.engine._plan.COMPILED_FROM", 0)
    found = {}
    # A third of the memory is for notes, a byte per element: too little of it, and nothing is noted.
    for memory in (3 * 300 * 1001, 3 * 300 * 1001 - 3):
        monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / str(memory)))
        monkeypatch.setattr("plait.engine._kernels._KERNELS", {})
        monkeypatch.setattr("plait.numerics._kernel_cache._LOADED", {})
        found[memory] = merged(states(3), method, memory)
    enough, short = found
    assert noting(tmp_path / str(enough)) == 1
    assert noting(tmp_path / str(short)) == 0
    assert torch.equal(found[enough], found[short])


def test_more_models_than_a_byte_has_bits_are_not_noted(tmp_path, monkeypatch):
    monkeypatch.setattr("plait.engine._plan.COMPILED_FROM", 0)
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path))
    given = states(9)
    compiled = merged(given, "dare_linear", 10**8)
    monkeypatch.setattr("plait.engine._plan.COMPILED_FROM", 10**9)
    assert noting(tmp_path) == 0
    torch.testing.assert_close(compiled, merged(given, "dare_linear", 10**8), rtol=1e-2, atol=1e-2)

"""A lazy tensor: whole, by rows, by elements, whatever it is read from."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
import torch

import plait
from plait.checkpoint import LazyTensor, ReadFlat
from plait.errors import InputError

SHAPES = [(), (0,), (5,), (1, 7), (4, 6), (3, 2, 5), (2, 0, 3), (3, 0)]


@pytest.mark.parametrize("shape", SHAPES)
def test_reading_whole_by_rows_and_by_elements_gives_the_same(tmp_path, shape):
    torch.manual_seed(1)
    values = torch.randn(shape)
    torch.save({"x": values}, tmp_path / "x.pt")
    for source in (tmp_path / "x.pt", {"x": values}):
        tensor = plait.open(source)["x"]
        assert torch.equal(tensor.read(), values)
        assert torch.equal(tensor.read_flat(0, values.numel()), values.reshape(-1))
        width = shape[-1] if shape else 1
        rows = torch.Size(shape[:-1]).numel()
        for start in range(rows + 1):
            part = tensor.read_rows(start, rows)
            assert torch.equal(part, values.reshape(rows, width)[start:])


def test_what_is_read_belongs_to_the_caller():
    values = torch.ones(2, 3)
    tensor = plait.open({"x": values})["x"]
    tensor.read().zero_()
    tensor.read_rows(0, 1).zero_()
    assert torch.equal(values, torch.ones(2, 3))


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (2, 1), (0, 5)])
def test_rows_that_are_not_there_are_refused(start, stop):
    tensor = plait.open({"x": torch.zeros(4, 2)})["x"]
    with pytest.raises(InputError, match=rf"tensor `x`: rows {start}:{stop} are not among its 4"):
        tensor.read_rows(start, stop)


def test_a_lazy_tensor_shows_what_it_is_and_not_its_values():
    tensor = plait.open({"head.weight": torch.zeros(4, 2, dtype=torch.bfloat16)})["head.weight"]
    assert repr(tensor) == "MemoryTensor('head.weight', bfloat16, [4, 2])"


def test_every_kind_of_lazy_tensor_has_read_and_read_rows():
    kinds = set()
    for room in ("plait.checkpoint", "plait.engine"):
        path = importlib.import_module(room).__path__
        for module in pkgutil.iter_modules(path, f"{room}."):
            found = vars(importlib.import_module(module.name)).values()
            kinds |= {c for c in found if isinstance(c, type) and "read_flat" in vars(c)}
    kinds.discard(LazyTensor)
    assert len(kinds) > 10
    assert {kind for kind in kinds if not issubclass(kind, ReadFlat)} == set()

"""The invariants: what every method must keep, each a function that raises `Broken` with how it did not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import permutations, product
from typing import Any

import torch

from plait.engine import RunOptions
from plait.errors import InputError
from plait.methods import Option
from plait.testing._bench import Bench
from plait.testing._rules import exact
from plait.testing._states import SHAPES, WIDE, State, difference, zeros_like

#: Rounding of float32, with room for a few operations and for weights above 1.
_ROUNDING = 2.0**-16
_TYPES = ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")


class Broken(AssertionError):
    """An invariant does not hold; the text says how."""


def runs(bench: Bench) -> None:
    """A merge has the tensors, shapes and type of its models, and finite values."""
    models = bench.models()
    found = bench.merge(models, bench.base())
    for name, tensor in found.items():
        like = models["a"][name]
        if tensor.shape != like.shape or tensor.dtype != like.dtype:
            raise Broken(f"`{name}` is {tensor.dtype} {list(tensor.shape)}, its models {list(like.shape)}")
    _finite(found, "models of normal numbers")


def compiled(bench: Bench) -> None:
    """The rule is one expression for every coordinate, and compiled it gives what torch gives."""
    if not bench.compiles:
        return
    same = exact(bench)
    found = difference(bench.wide(compiled=True), bench.wide(), 0.0 if same else _ROUNDING)
    _same(found, "compiled and evaluated by torch")


def blocks(bench: Bench) -> None:
    """Any memory budget that holds a matrix gives the same bytes; a rule of whole tensors has no blocks."""
    if bench.method.whole(bench.settings()):
        return
    least, _ = bench.plan(bench.models(WIDE), bench.base(WIDE)).largest or (1, "")
    for ways in _evaluations(bench):
        found = bench.usual(WIDE, run=RunOptions(memory=least, threads=1, allow_nan=True), **ways)
        _same(difference(found, bench.wide(**ways)), "in small blocks and in large ones")


def threads(bench: Bench) -> None:
    """Any number of threads gives the same bytes."""
    for ways in _evaluations(bench):
        found = bench.usual(WIDE, run=RunOptions(threads=3, allow_nan=True), **ways)
        _same(difference(found, bench.wide(**ways)), "on three threads and on one")


def seed(bench: Bench) -> None:
    """The same seed gives the same bytes."""
    _same(difference(bench.usual(), bench.usual()), "twice with one seed")


def order(bench: Bench) -> None:
    """A method that says it is symmetric gives the same for its models in any order."""
    if not bench.method.symmetric or bench.count < 2:
        return
    # A running average of two is symmetric, of three it is not.
    bench = bench.of(3) if bench.count == 2 and bench.method.max_models is None else bench
    # The engine orders the models of a symmetric method; only without that does their order show.
    bare = replace(bench, method=replace(bench.method, symmetric=False))
    models, base = bench.models(), bench.base()
    expected = bare.merge(models, base)
    for names in permutations(models):
        options = {name: _reordered(value, names) for name, value in bench.options.items()}
        given = {name: models[name] for name in names}
        found = bare.merge(given, base, changes=options)
        words = f"with the models as {', '.join(names)} and as {', '.join(models)}, though it is symmetric,"
        _same(difference(found, expected, _ROUNDING), words)


def types(bench: Bench) -> None:
    """Narrow types are computed in float32 and rounded once, at the end; float64 stays float64."""
    models, base = bench.models(), bench.base()
    for name in _TYPES:
        dtype = getattr(torch, name, None)
        if dtype is None:
            continue
        narrow = {model: _cast(tensors, dtype) for model, tensors in models.items()}
        wide = {model: _cast(tensors, torch.float32) for model, tensors in narrow.items()}
        narrow_base = None if base is None else _cast(base, dtype)
        wide_base = None if narrow_base is None else _cast(narrow_base, torch.float32)
        found = bench.merge(narrow, narrow_base)
        expected = _cast(bench.merge(wide, wide_base), dtype)
        _same(difference(found, expected), f"in {name} and in float32, rounded at the end,")
    double = {model: _cast(tensors, torch.float64) for model, tensors in models.items()}
    found = bench.merge(double, None if base is None else _cast(base, torch.float64))
    expected = _cast(bench.merge(models, base), torch.float64)
    _same(difference(found, expected, _ROUNDING), "in float64 and in float32")


def zeros(bench: Bench) -> None:
    """Models that equal the base, and models that are all zero, give finite values."""
    start = bench.models()["a"]
    for value, words in ((start, "models that are all equal"), (zeros_like(start), "models of zeros")):
        models = dict.fromkeys(bench.models(), value)
        for ways in _evaluations(bench):
            _finite(bench.merge(models, dict(value) if bench.with_base else None, **ways), words)


def shapes(bench: Bench) -> None:
    """A checkpoint may hold nothing but a scalar, an empty tensor, a row or a column."""
    for (name, shape), ways in product(SHAPES.items(), _evaluations(bench)):
        try:
            found = bench.usual({name: shape}, **ways)
        except InputError as error:
            raise Broken(f"a checkpoint of one {name}, {list(shape)}: {error}") from error
        if found[name].shape != shape:
            raise Broken(f"a checkpoint of one {name}, {list(shape)}, comes out as {list(found[name].shape)}")
        _finite(found, f"a checkpoint of one {name}")


def one_model(bench: Bench) -> None:
    """One model merges, where the method takes so few."""
    if bench.method.min_models > 1:
        return
    _finite(bench.of(1).usual(), "one model")


def nan(bench: Bench) -> None:
    """NaN and infinity in an input are refused, and pass where that is asked for."""
    inputs = [*(["base"] if bench.with_base else []), *bench.models()]
    bad = [(inputs[0], float("inf")), *((name, float("nan")) for name in inputs)]
    models, base = bench.models(), bench.base()
    for (place, value), ways in product(bad, _evaluations(bench)):
        models, base = bench.models(), bench.base()
        spoilt = models[place] if base is None or place != "base" else base
        spoilt["matrix"][2, 3] = value
        try:
            bench.merge(models, base, run=RunOptions(threads=1), **ways)
        except InputError as error:
            if "`matrix`" not in str(error) or place not in str(error):
                raise Broken(f"{value} in `matrix` of {place} is refused as: {error}") from error
        else:
            raise Broken(f"{value} in the tensor `matrix` of {place} is not refused")
    bench.merge(models, base, run=RunOptions(allow_nan=True))


def options(bench: Bench) -> None:
    """A value that an option has for one tensor acts on that tensor alone."""
    stages = bench.method.stages(bench.settings())
    if any(stage.scope == "model" for stage in stages):
        return
    for option in bench.method.options:
        if option.kind != "float" or option.optional:
            continue
        here = _first(bench.options.get(option.name, option.default_for(bench.conventions)))
        there = _another(option, here)
        if any(bench.method.check(bench.settings(**{option.name: v})) for v in (here, there)):
            continue
        one, two = (bench.usual(changes={option.name: value}) for value in (here, there))
        expected = {**one, "twin": two["twin"]}
        mixed = {option.name: [{"filter": "twin", "value": there}, {"value": here}]}
        for ways in _evaluations(bench):
            found = difference(bench.usual(changes=mixed, **ways), expected, _ROUNDING if ways else 0.0)
            words = " compiled" if ways else ""
            _same(found, f"with `{option.name}` {there} for `twin` alone and everywhere{words}")


def _evaluations(bench: Bench) -> list[dict[str, Any]]:
    """The ways to evaluate a rule: by torch and compiled, or whole."""
    return [{}, {"compiled": True}] if bench.compiles else [{}]


def _same(found: str | None, words: str) -> None:
    if found is not None:
        raise Broken(f"{words} the results differ: {found}")


def _finite(state: State, words: str) -> None:
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise Broken(f"{words} give NaN or infinity in `{name}`")


def _cast(tensors: State, dtype: torch.dtype) -> State:
    return {name: value.to(dtype) for name, value in tensors.items()}


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def _reordered(value: Any, names: tuple[str, ...]) -> Any:
    return [value["abcdefgh".index(name)] for name in names] if isinstance(value, list) else value


def _another(option: Option, value: float) -> float:
    if option.low is None or option.high is None:
        return 0.5 * value if value else max(0.5, option.low or 0.0)
    middle = (option.low + option.high) / 2
    return (value + (option.low if value >= middle else option.high)) / 2


#: Name → invariant, the ones that others rest on first.
INVARIANTS: Mapping[str, Callable[[Bench], None]] = {
    "runs": runs,
    "compiled": compiled,
    "blocks": blocks,
    "threads": threads,
    "seed": seed,
    "order": order,
    "types": types,
    "zeros": zeros,
    "shapes": shapes,
    "one model": one_model,
    "nan": nan,
    "options": options,
}
